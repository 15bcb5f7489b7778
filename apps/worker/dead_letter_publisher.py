"""Dead-letters or returns messages from the worker's main process: publishes a copy, then acks the original.

    main process --(message, failure)--> a thread --publish, confirmed--> dead --> recorder: FAILURE, dead.parked
                                            |  `-- or the delay exchange (apps/worker/version_returns.py)
                                            `-- only then: ack of the original

A plain reject would also dead-letter the message, but without the reason. The thread has its own connection: during an
alarm, the broker blocks connections that publish, including their acks and heartbeats. After any error the original is
not acked: it is rejected without a reason, or the copy is published later, or the broker redelivers the original.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import Empty, PriorityQueue
from typing import Any, NamedTuple

from apps.contract import failures, topology
from apps.contract.failures import FAILURE_HEADER
from apps.contract.message import raw
from apps.contract.states import failure
from apps.worker.version_returns import Copy

log = logging.getLogger(__name__)

# From `Rejections.add` on. A confirm takes milliseconds, and until then the message may occupy a slot of the pool. If
# the broker accepts no messages, they are rejected after this time. A publish that has started may take as long again.
PUBLISH_DEADLINE_S = 10.0
CONNECT_DEADLINE_S = 3.0
# Delay before a refused copy is published again.
RETRY_S = 1.0
# An idle connection is kept for this time, as opening one costs more than a publish.
IDLE_S = 5.0
# In characters: with escapes, the header must fit into one frame of 128 KiB beside the others.
MESSAGE_MAX = 4_000


class Rejection(NamedTuple):
    """A message with its failure; `ack` and `reject` answer the original, and may be called in any thread.

    Without `reject`, the copy is published again until the broker accepts it. `copy` replaces the dead letter with the
    failure.
    """

    message: Any
    failure: dict[str, str]
    ack: Callable[[], None]
    reject: Callable[[], None] | None
    copy: Copy | None = None


class _Waiting(NamedTuple):
    """An entry of the queue; those with a deadline are first. `number` is unique: later fields are not compared."""

    without_deadline: bool
    number: int
    rejection: Rejection
    due_s: float


class Rejections:
    """Rejections of a worker's main process; the first one starts the thread."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._queue: PriorityQueue[_Waiting] = PriorityQueue()
        self._numbers = count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.pending = 0
        """The number of messages that are not acked or rejected yet."""

    def add(self, rejection: Rejection) -> None:
        """Dead-letter or return a message. Does not block."""
        due_s = time.monotonic() + PUBLISH_DEADLINE_S
        with self._lock:
            self.pending += 1
            self._queue.put(_Waiting(rejection.reject is None, next(self._numbers), rejection, due_s))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="rejections", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        publisher = _Publisher(self._app)
        while True:
            try:
                waiting = self._queue.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        break
                continue
            settled = True
            try:
                settled = _settle(publisher, waiting.rejection, waiting.due_s)
            except Exception:
                log.exception("rejection failed")  # unacked: the broker will redeliver the message
            if not settled:
                self._queue.put(waiting._replace(number=next(self._numbers)))
                time.sleep(RETRY_S)
                continue
            with self._lock:
                self.pending -= 1
        publisher.close()


def _settle(publisher: "_Publisher", rejection: Rejection, due_s: float) -> bool:
    """Publish the copy, and ack or reject the original. Returns False if it must be retried.

    `due_s` is the time of the monotonic clock at which the original is rejected.
    """
    if not _is_held(rejection.message):  # its connection was lost: the broker redelivers it
        return True
    within_s = PUBLISH_DEADLINE_S if rejection.reject is None else due_s - time.monotonic()
    try:
        _publish(publisher, rejection, within_s)
    except Exception as exc:  # noqa: BLE001 - errors of kombu, amqp and sockets
        publisher.drop()
        about = {"error": repr(exc), "type": rejection.failure["type"]}
        if rejection.reject is None:
            log.warning("the broker has not taken a copy: it is published again", extra={"fields": about})
            return False
        log.warning("rejected without a reason", extra={"fields": about})
        if _is_held(rejection.message):
            rejection.reject()
        return True
    rejection.ack()
    return True


def _publish(publisher: "_Publisher", rejection: Rejection, within_s: float) -> None:
    if within_s <= 0:
        raise TimeoutError("the deadline passed while others were published")
    try:
        publisher.publish(rejection.copy or _dead_copy(rejection.message, rejection.failure), within_s)
    except _UnwritableError as exc:  # a retry cannot succeed
        publisher.publish(raw_copy(rejection.message, failures.malformed(str(exc))), within_s)


def _dead_copy(message: Any, failed: dict[str, str]) -> Copy:
    """A dead letter: the message with its failure."""
    header = json.dumps(failure(failed["type"], failed["message"][:MESSAGE_MAX]))
    headers = message.headers | {FAILURE_HEADER: header}
    return Copy(
        topology.EXCHANGE, topology.DEAD_QUEUE, message.body, headers, message.content_type, message.content_encoding
    )


def raw_copy(message: Any, failed: dict[str, str]) -> Copy:
    """A dead letter that contains an unreadable message."""
    body = message.body
    kept = raw(message.raw_properties, body.encode() if isinstance(body, str) else bytes(body), failed)
    return Copy(topology.EXCHANGE, topology.DEAD_QUEUE, kept.body, kept.headers, None, None)


def _is_held(message: Any) -> bool:
    """Whether the connection that delivered the message is still open."""
    connection = message.channel.connection
    return bool(connection and connection.connected)


class _UnwritableError(Exception):
    """py-amqp has read a message's headers but cannot write them."""


class _Publisher:
    """A connection that is opened on demand."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None
        self._returned: list[Exception] = []

    def publish(self, copy: Copy, within_s: float) -> None:
        """Publish a copy. Returns if it is confirmed in time, and raises otherwise."""
        channel = self._channel()
        self._returned.clear()
        properties: dict[str, Any] = {"delivery_mode": 2}
        if isinstance(task_id := copy.headers.get("id"), str):
            properties |= {"correlation_id": task_id, "message_id": task_id}
        prepared = channel.prepare_message(
            copy.body,
            content_type=copy.content_type,
            content_encoding=copy.content_encoding,
            headers=copy.headers,
            properties=properties,
        )
        try:
            prepared._serialize_properties()  # noqa: SLF001 - in basic_publish, its errors would look like errors of the broker
        except Exception as exc:
            raise _UnwritableError(f"its headers cannot be written: {exc!r}") from exc
        channel.basic_publish(
            prepared, exchange=copy.exchange, routing_key=copy.routing_key, mandatory=True, timeout=within_s
        )
        if self._returned:
            raise self._returned[0]

    def close(self) -> None:
        """Close the connection with Connection.Close."""
        if self._connection is not None:
            with suppress(Exception):  # the broker may have closed it
                self._connection.release()
        self._connection = None

    def drop(self) -> None:
        """Close the connection without Connection.Close, as the broker may not respond."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.collect()
        self._connection = None

    def _channel(self) -> Any:
        if self._connection is None or not self._connection.connected:
            self.drop()
            self._connection = self._app.connection_for_write(
                connect_timeout=CONNECT_DEADLINE_S,
                transport_options={"read_timeout": PUBLISH_DEADLINE_S, "write_timeout": PUBLISH_DEADLINE_S},
            )
            self._connection.connect()
            # called before the confirm
            self._connection.default_channel.events["basic_return"] = {lambda error, *_: self._returned.append(error)}
        return self._connection.default_channel
