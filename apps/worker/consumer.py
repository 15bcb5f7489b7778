"""The worker's consumer: Celery's own, without its gossip, and with files that tell a probe how it is."""

import logging
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.delayed_delivery import DelayedDelivery

log = logging.getLogger(__name__)

# A probe takes the worker for hung when the liveness file is older than a few of these.
TOUCH_INTERVAL_S = 1.0


class Consumer(consumer.Consumer):  # type: ignore[misc]  # celery ships no types
    """Celery's consumer; a message that it cannot read becomes a dead letter instead of vanishing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Both only talk between workers: nothing here needs it, and each start would wait a second for answers.
        super().__init__(*args, **kwargs, without_mingle=True, without_gossip=True)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        log.error("unreadable message", extra={"fields": {"error": str(exc)}})
        message.reject_log_error(log, self.connection_errors)


class HealthFiles(bootsteps.StartStopStep):  # type: ignore[misc]
    """Keeps the liveness and the readiness file.

    The worker's own event loop touches the first, only while it is connected and consumes: a worker that hangs,
    or that lost its broker for good, lets it grow old. The second exists from the first consumption to the stop.
    """

    requires = (DelayedDelivery,)
    liveness_file: Path | None = None
    readiness_file: Path | None = None

    def start(self, c: Any) -> None:
        self._timer = c.timer.call_repeatedly(TOUCH_INTERVAL_S, self._touch, (c,))
        self._touch(c)
        if self.readiness_file:
            self.readiness_file.touch()
        log.info("consuming", extra={"fields": {"queues": [queue.name for queue in c.task_consumer.queues]}})

    def stop(self, c: Any) -> None:
        self._timer.cancel()
        if self.readiness_file:
            self.readiness_file.unlink(missing_ok=True)

    def _touch(self, c: Any) -> None:
        if self.liveness_file and c.connection and c.connection.connected and c.task_consumer:
            self.liveness_file.touch()


def health_files(liveness_file: str | None, readiness_file: str | None) -> type[HealthFiles]:
    """The step for these two files; Celery makes the instance itself."""
    paths = {
        "liveness_file": Path(liveness_file) if liveness_file else None,
        "readiness_file": Path(readiness_file) if readiness_file else None,
    }
    return type("HealthFiles", (HealthFiles,), paths)
