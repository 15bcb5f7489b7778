"""A task's message in the worker's main process: when it is acked, when it goes to the dead letters.

    child ends its task     -> record written by the child, then ack
    child is lost           -> back to the queue; the broker counts it (delivery limit)
    hard time limit, reject -> dead letters, where the recorder writes the FAILURE

Nothing here waits for Redis: while it is away, time limits and heartbeats must go on.
"""

import logging
import time
from contextlib import suppress
from functools import cache
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import request, state

from apps.contract import ids
from apps.worker import metrics
from apps.worker.limits import LIMIT_SIGNAL

log = logging.getLogger(__name__)

# Found once for each task and outcome: looking one up costs as much as counting.
results = cache(metrics.RESULTS.labels)
wait_seconds = cache(metrics.WAIT_SECONDS.labels)
run_seconds = cache(metrics.RUN_SECONDS.labels)


class Request(request.Request):  # type: ignore[misc]  # celery ships no types
    """Celery's request, with three of its answers changed and the outcome counted."""

    _outcome = "success"

    def __init__(self, message: Any, **options: Any) -> None:
        if not options.get("decoded"):  # Celery has decoded it to look at it, and would again to run it
            options |= {"body": message.payload, "decoded": True}
        super().__init__(message, **options)
        # What a retry hands on: else Celery makes the list of its own names, and takes each out, at each task.
        self._request_dict["headers"] = {name: value for name, value in message.headers.items() if name not in _CELERYS}

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        first = not self._request_dict.get("retries") and not self.delivery_info.get("redelivered")
        if first:
            with suppress(ValueError):  # an id that is not ours has no time in it
                wait_seconds(self.name).observe(max(0.0, self.time_start - ids.created_at_s(self.id)))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):
            exc = exc.exc
        self._outcome = _OUTCOMES.get(type(exc), "failure")
        # `return_ok` says that the child went through its whole trace: its record is written.
        timed_out = isinstance(exc, WorkerLostError) and LIMIT_SIGNAL in str(exc)
        if timed_out or isinstance(exc, Reject) or not (return_ok or isinstance(exc, _LOST)):
            self._log("hard time limit exceeded" if timed_out else "given up", reason=repr(exc))
            state.task_ready(self)
            self.reject(requeue=isinstance(exc, Reject) and exc.requeue)
            return
        if isinstance(exc, MemoryError):  # the task's own; Celery would end the whole worker for it
            state.task_ready(self)
            self.acknowledge()
            return
        if isinstance(exc, WorkerLostError):
            self._log("its process was lost", reason=str(exc))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self._count(self._outcome)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._count("requeued" if requeue else "dead")
        super().reject(requeue=requeue)

    def _announce_revoked(self, reason: str, terminated: bool, signum: object, expired: bool) -> None:
        # Celery would ack first and store second, from here: the dead letters lose nothing in between.
        self._log("revoked by remote control", reason=reason)
        state.task_ready(self)
        self.reject(requeue=False)
        self._already_revoked = True

    def _success_was_stored(self) -> bool:
        # Celery would ask Redis from here. The next run's `begin` does: a task that is final is not run again.
        return False

    def _count(self, outcome: str) -> None:
        results(self.name, outcome).inc()
        if self.time_start:
            run_seconds(self.name).observe(max(0.0, time.time() - self.time_start))

    def _log(self, message: str, **fields: object) -> None:
        about = {"task_id": self.id, "request_id": self._request_dict.get("request_id"), "task": self.name}
        log.warning(message, extra={"fields": about | fields})


# As Celery finds them in Context; a test compares the two.
_CELERYS = {*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}
# The child ended without an answer; Celery hands the task back, unless it ended it itself.
_LOST = (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)
_OUTCOMES = {Retry: "retry", Ignore: "skipped", WorkerLostError: "lost"}
