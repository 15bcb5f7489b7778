"""Celery's consumer, extended with health files, dead letters with reasons, and a graceful shutdown.

    SIGTERM -> no new messages -> running tasks end, are stored and acked -> exit
                             `-> SOFT_SHUTDOWN_S pass -> exit; the broker redelivers unacked messages to other workers

Celery's soft shutdown always sleeps for the full time in the signal handler, without heartbeats and acks. Here the
event loop continues, and the worker exits as soon as its tasks have ended.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.worker import consumer, state
from celery.worker.consumer.delayed_delivery import DelayedDelivery

from apps.contract import failures
from apps.contract.message import CONTENT_ENCODING, CONTENT_TYPE, is_known_form, unreadable_because
from apps.contract.settings import WorkerSettings
from apps.health import HealthFiles
from apps.startup import broker_refused
from apps.worker import frame_handler, version_returns
from apps.worker.connection_attempts import REFUSALS
from apps.worker.dead_letter_publisher import Rejection, raw_copy
from apps.worker.outcome import failure_of
from apps.worker.prefetch import Prefetch
from apps.worker.version_returns import Copy

log = logging.getLogger(__name__)

# The properties of our messages have less than 1 KiB. Larger ones would fit into a frame of 128 KiB, but not with the
# headers that each copy adds.
PROPERTIES_MAX_BYTES = 32 * 1024
# Interval of touching the liveness file while connected, far below the 60 s of the probe.
TICK_S = 0.5
# A draining worker exits after this number of idle ticks: the acks of its last tasks are sent by then.
IDLE_TICKS = 2


class Consumer(consumer.Consumer):  # type: ignore[misc]  # celery ships no types
    """Celery's consumer; a message that it cannot run is dead-lettered with the reason."""

    prefetch: Prefetch

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Disable messages between workers, which are not needed: they would delay each start by a second, and need a
        # second connection. AMQP's own heartbeat does not depend on `without_heartbeat`.
        super().__init__(*args, **kwargs, without_mingle=True, without_gossip=True, without_heartbeat=True)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            properties = message.properties
            message.raw_properties = properties.pop(frame_handler.RAW)  # removed, or they would be sent to the pool
            try:
                if reason := _unreadable_because(message):
                    self._park(message, reason)
                elif is_known_form(message.headers):
                    handle(message)
                else:
                    self._return(message, "form", failures.not_understood("its form is of another version"))
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as exc:  # noqa: BLE001 - the error would end the worker, and each worker after it
                self.on_decode_error(message, exc)

        return on_task_received

    def call_soon_ack(self, method: Any, *args: Any) -> Any:
        """Send an ack or a reject, from any thread. The task may have ended: a slot of the pool may be free."""
        if self.prefetch.limited:
            self.prefetch.place_is_free()
        return self.call_soon(method, *args)  # as Celery does with an event loop

    def update_strategies(self) -> None:
        super().update_strategies()
        for name, task in self.app.tasks.items():
            if not hasattr(task, "spec"):  # Celery's own tasks (celery.map) and @shared_task write no record
                del self.strategies[name]

    def start(self) -> None:
        """Connect, consume and reconnect until the worker ends.

        During the start, a missing permission or queue ends the worker; `Lifecycle` makes it a retried error later.
        """
        try:
            super().start()
        except REFUSALS as exc:
            raise SystemExit(str(broker_refused(self.conninfo.hostname, exc))) from None

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        about = failure_of(exc)
        self._park(message, f"{about['type']}: {about['message']}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        self._park(message, str(exc))

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002
        self._park(message, "it is not a message of Celery's protocol")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        self._return(message, "task", failures.unknown_task(message.headers["task"]))

    def _return(self, message: Any, what: str, failure: dict[str, str]) -> None:
        """Return a message of another version for a later worker, or dead-letter it after RETURN_MAX_S."""
        outcome = version_returns.later(message, what, failure, self.app.conf.sluice_return_max_s)
        copy, failure = (outcome, failure) if isinstance(outcome, Copy) else (None, outcome)
        # Never reject a copy: a task of a version that is being rolled out would become a FAILURE.
        reject = None if copy else self._answer(message.reject_log_error)
        self.app.rejections.add(
            Rejection(message, failure, self._answer(message.ack_log_error), reject, copy),
        )

    def _park(self, message: Any, reason: str) -> None:
        """Dead-letter an unreadable message unchanged."""
        failure = failures.malformed(reason)
        # the readable headers, for the log
        headers = message.headers or frame_handler.decoded(message.raw_properties)
        log.error("given up", extra={"fields": {"task_id": headers.get("id"), "reason": failure["message"]}})
        copy = raw_copy(message, failure)
        # Never reject it: the broker would extend its headers, and some headers then stop RabbitMQ 3.10's
        # dead-lettering.
        self.app.rejections.add(Rejection(message, failure, self._answer(message.ack_log_error), None, copy))

    def _answer(self, method: Callable[..., None]) -> Callable[[], None]:
        return lambda: self.call_soon(method, log, self.connection_errors)


def _unreadable_because(message: Any) -> str | None:
    if len(message.raw_properties) > PROPERTIES_MAX_BYTES:
        return f"its properties have more than {PROPERTIES_MAX_BYTES} bytes"
    headers = message.headers
    if not headers and message.raw_properties[0] & 0x20:
        return unreadable_because(frame_handler.decoded(message.raw_properties)) or "its properties cannot be decoded"
    if is_known_form(headers) and (
        message.content_type != CONTENT_TYPE or message.content_encoding != CONTENT_ENCODING
    ):  # kombu would decompress the body for some encodings
        return f"its content is {message.content_type!r} in {message.content_encoding!r}"
    return unreadable_because(headers)


class Lifecycle(bootsteps.StartStopStep):  # type: ignore[misc]
    """Maintains the health files, and shuts the worker down at SIGTERM.

    The liveness file is touched by the event loop while connected, and by each attempt to connect: it becomes old if
    the worker hangs or stops trying. The readiness file exists while the worker consumes.
    """

    requires = (DelayedDelivery, Prefetch)
    settings: WorkerSettings
    health: HealthFiles

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self._consuming = self._draining = False
        self._idle_ticks = 0

    def start(self, c: Any) -> None:
        """Called at each connection to the broker."""
        # A child that ended just before the connection may still be in the pool, without the file descriptor that
        # reports its end. Celery's event loop, which starts next, would end the worker because of it.
        c.pool.maintain_pool()
        if self._draining:  # the broker has redelivered the running tasks
            state.should_stop = os.EX_OK
            return
        self._consuming = True
        self._pool = c.pool
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._timer = c.timer.call_repeatedly(TICK_S, self._tick, (c,))
        c.call_soon(self._on_consuming, c)

    def _on_consuming(self, c: Any) -> None:
        """Called in the first turn of the event loop, when the broker has accepted the consumer."""
        if self._draining or not self._consuming:
            return
        if not self.health.has_been_ready:
            c.connection_errors = (*c.connection_errors, *REFUSALS)
        self.health.alive()
        self.health.ready()
        log.info("consuming", extra={"fields": {"queues": [queue.name for queue in c.task_consumer.queues]}})

    def stop(self, c: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Called when the connection is lost, and at the end."""
        if self._consuming:
            self._timer.cancel()
        self._consuming = False
        if self._draining:
            state.should_stop = os.EX_OK
        self.health.unready()

    def _on_sigterm(self, *_: object) -> None:
        if self._draining:
            return
        self._draining = True
        kill = threading.Timer(self.settings.soft_shutdown_s, _kill_running, (self._pool,))
        kill.daemon = True
        kill.start()
        if not self._consuming:
            state.should_stop = os.EX_OK

    def _tick(self, c: Any) -> None:
        if c.connection and c.connection.connected:
            self.health.alive()
        if self._draining:
            self._drain(c)

    def _drain(self, c: Any) -> None:
        if self._idle_ticks == 0:
            c.prefetch.drain()
            self.health.unready()
        self._idle_ticks = 1 if state.reserved_requests or c.app.rejections.pending else self._idle_ticks + 1
        if self._idle_ticks > IDLE_TICKS:
            log.info("drained")
            state.should_stop = os.EX_OK


def _kill_running(pool: Any) -> None:
    # Neither a pool of threads nor a child that waits for Redis can be stopped gracefully. The kernel kills the
    # children with their parent (Celery sets the parent-death signal), and tasks without a stored result are not acked.
    fields = {"tasks": list(state.requests)}
    log.warning("tasks still run: killing them; the broker redelivers them", extra={"fields": fields})
    with suppress(Exception):  # the worker must exit after any error
        pool.end_descendants()
    os._exit(os.EX_OK)


def lifecycle(settings: WorkerSettings, health: HealthFiles) -> type[Lifecycle]:
    """A step class with these settings; Celery creates the instance."""
    return type("Lifecycle", (Lifecycle,), {"settings": settings, "health": health})
