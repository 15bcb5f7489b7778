"""Ends the running task when it is cancelled: in a process of the pool, which a signal can interrupt.

    API: cancel --> Redis: flag in the record, id on the channel --> listener (a thread of the process)
                                                                        | signal
                                                       Cancelled, raised in the task --> end(REVOKED), ack

A task that will not be interrupted is ended with its process; the next `begin` finds the flag. A pool of threads
has no such signal: there a running task runs out.
"""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from apps.contract import states
from apps.worker.outcome import is_a

log = logging.getLogger(__name__)

# What a task has to clean up, before its process is ended.
KILL_AFTER_S = 10.0
RECONNECT_S = 1.0
# A Redis that says nothing for so long is asked whether it is there.
LISTEN_S = 5.0
REMEMBERED = 1000
_SIGNAL = signal.SIGUSR2  # billiard has no use for it


class Cancelled(BaseException):
    """Raised in a task that was cancelled; no `except Exception` of its own keeps it."""


class Cancellation:
    """Of one process, which runs one task at a time."""

    def __init__(self) -> None:
        self._noted: str | None = None
        self._running: str | None = None
        self._interruptible = False
        self._raised = False
        # ids that were cancelled lately: one may be told before its task has begun here
        self._cancelled: deque[str] = deque(maxlen=REMEMBERED)

    def listen(self, url: str) -> None:
        """Begin to listen; called once in each process of the pool, by its main thread."""
        signal.signal(_SIGNAL, self._interrupt)
        threading.Thread(target=self._listen, args=(url,), name="cancellation", daemon=True).start()

    def note(self, task_id: str) -> None:
        """Called before a task begins: a cancel may come, and its message be lost, from the moment that it has."""
        self._noted = task_id

    @contextmanager
    def running(self, task_id: str) -> Iterator[None]:
        """Let the block be interrupted: raises Cancelled inside."""
        self._raised = False
        self._running = task_id
        try:
            try:
                self._interruptible = True
                if task_id in self._cancelled:
                    self._raise()
                yield
            finally:
                self._interruptible = False
        finally:
            self._running = None

    def caused(self, exc: BaseException) -> bool:
        """Whether a cancel ended the last run by this error; a task may raise Cancelled itself."""
        if not self._raised:
            return False
        if is_a(exc, BaseExceptionGroup):  # of an asyncio.TaskGroup
            return any(map(self.caused, exc.exceptions))  # type: ignore[attr-defined]
        return is_a(exc, Cancelled)

    def _listen(self, url: str) -> None:
        while True:
            client = Redis.from_url(
                url, decode_responses=True, socket_timeout=LISTEN_S, socket_connect_timeout=2,
                retry=Retry(NoBackoff(), 0), health_check_interval=LISTEN_S,
            )  # fmt: skip
            try:
                self._serve(client)
            except (RedisError, OSError) as exc:
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
            client.close()
            time.sleep(RECONNECT_S)

    def _serve(self, client: Redis) -> None:
        with client.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(states.CANCEL_CHANNEL)
            while True:
                message = channel.get_message(timeout=LISTEN_S)
                kind = message["type"] if message else ""
                if kind == "message":
                    self._cancel(str(message["data"]))
                elif kind == "subscribe":  # from here on nothing is missed; and before?
                    noted = self._noted
                    if noted and _is_cancelled(client, noted):
                        self._cancel(noted)

    def _cancel(self, task_id: str) -> None:
        # Noted first, looked at second; the task does the reverse.
        self._cancelled.append(task_id)
        if self._running != task_id:
            return
        signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        threading.Timer(KILL_AFTER_S, self._kill, (task_id,)).start()

    def _interrupt(self, *_: object) -> None:
        if self._interruptible and self._running in self._cancelled:
            self._interruptible = False  # once: what the task then cleans up is not interrupted
            self._raise()

    def _raise(self) -> NoReturn:
        self._raised = True
        raise Cancelled

    def _kill(self, task_id: str) -> None:
        if self._running == task_id:
            log.warning("a cancelled task goes on: its process is ended", extra={"fields": {"task_id": task_id}})
            os.kill(os.getpid(), signal.SIGKILL)


def _is_cancelled(client: Redis, task_id: str) -> bool:
    place = states.place(task_id)
    if client.getrange(place.record, 0, 0) == "C":
        return True
    return bool(client.hexists(place.earlier, "cancel"))
