"""A task's message in the worker's main process: when it is acked, requeued, returned or dead-lettered.

    child ends its task   -> record written by the child, then ack
    child is lost         -> back to the queue; the broker counts it (delivery limit)
    input of another version -> the delay exchange, for a worker of that version (apps/worker/version_returns.py)
    anything else         -> dead letters with the reason (apps/worker/dead_letter_publisher.py), for the recorder

This module never waits for Redis: during its outages, time limits and heartbeats must continue.
"""

import logging
import time
from contextlib import suppress
from functools import cache
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, Reject
from celery.worker import request, state

from apps.contract import failures, ids
from apps.worker import task_metrics, version_returns
from apps.worker.dead_letter_publisher import Rejection
from apps.worker.outcome import failure_of
from apps.worker.prefork import HardLimitError
from apps.worker.task import FAILURE, RETRY, REVOKED, SKIPPED, SUCCESS
from apps.worker.threads import Waiting
from apps.worker.version_returns import Copy

log = logging.getLogger(__name__)

# Cached per task and outcome: looking up a counter takes as long as incrementing it.
results = cache(task_metrics.RESULTS.labels)
wait_seconds = cache(task_metrics.WAIT_SECONDS.labels)
run_seconds = cache(task_metrics.RUN_SECONDS.labels)


class Request(request.Request):  # type: ignore[misc]  # celery ships no types
    """Celery's request, with changed answers to the broker, and with metrics."""

    _outcome = ""

    def __init_subclass__(cls) -> None:
        # Celery creates a subclass for each task, whose `on_success` treats every answer as a success.
        cls.on_success = Request.on_success  # type: ignore[method-assign]

    def __init__(self, message: Any, **options: Any) -> None:
        if not options.get("decoded"):  # Celery has already decoded it, and would decode it again
            options |= {"body": message.payload, "decoded": True}
        super().__init__(message, **options)
        self.time_limits = (None, None)  # ignore the message's limits: apps/worker/watchdog.py has the task's
        arguments, keywords, embedded = self._payload
        one = isinstance(arguments, list) and len(arguments) == 1 and isinstance(arguments[0], str | dict)
        if not one or keywords:
            raise InvalidTaskError("its arguments are not one input")
        if not isinstance(embedded, dict) or any(embedded.values()):
            raise InvalidTaskError("it has callbacks, which no message of the API has")
        # The headers that a retry keeps. Celery would compute this list for each task.
        self._request_dict["headers"] = {name: value for name, value in message.headers.items() if name not in _CELERYS}

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        first = not self._request_dict.get("retries") and not self.delivery_info.get("redelivered")
        if first:
            with suppress(ValueError):  # an id that is not ours contains no time
                wait_seconds(self.name).observe(max(0.0, self.time_start - ids.created_at_s(self.id)))

    def on_success(self, failed__retval__runtime: Any, **_: Any) -> None:
        failed, retval, _runtime = failed__retval__runtime
        if failed:
            self.on_failure(retval, return_ok=True)
            return
        self._outcome = _OUTCOMES[retval]
        state.task_ready(self)
        self.acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):
            exc = exc.exc
        if isinstance(exc, HardLimitError):
            self._give_up(failures.hard_time_limit(self.task.spec.hard_limit_s))
        elif isinstance(exc, _LOST) and not return_ok:
            self._outcome = "lost"
            self._log("its process was lost", reason=str(exc))
            if isinstance(exc, Terminated) and not self._already_cancelled:
                # An earlier task ignored the request to end this process. Celery would revoke the present task.
                state.task_ready(self)
                self.reject(requeue=True)
                return
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        elif isinstance(exc, Reject) and exc.reason["type"] == failures.NOT_UNDERSTOOD:
            self._return(exc.reason)
        elif isinstance(exc, Reject):
            self._give_up(exc.reason)
        else:  # a defect outside of the task: `run` (apps/worker/task.py) handles all errors of the task
            self._give_up(failure_of(exc))

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self._count(self._outcome)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        if not requeue:  # Celery decided to reject it, for example because of an invalid ETA
            self._give_up(failures.revoked("Celery rejected it; the log of the worker says more"))
            return
        if not self.acknowledged:
            self._count("requeued")
        super().reject(requeue=True)

    @property
    def delivery_count(self) -> int:
        """The number of deliveries that the broker has counted against the delivery limit."""
        count = self.message.headers.get("x-delivery-count")
        return count if isinstance(count, int) else 0  # before the first delivery, 4.3 keeps the publisher's value

    def withdraw(self) -> bool:
        """Prevent a task from starting, to return its message. Returns False if it has started or is about to."""
        if self._apply_result is not None:  # already submitted to the pool
            given = self._apply_result()
            if not isinstance(given, Waiting) or not given.withdraw():
                return False
        self._already_revoked = True  # Celery skips it when a process becomes free
        self.acknowledged = True
        state.task_ready(self)
        return True

    def _give_up(self, failure: dict[str, str]) -> None:
        self._log("given up", type=failure["type"], reason=failure["message"])
        self._outcome = "dead"
        state.task_ready(self)
        self._app.rejections.add(Rejection(self.message, failure, self.acknowledge, self._reject_without_reason))

    def _return(self, failure: dict[str, str]) -> None:
        """Return a task whose input this version does not understand, or dead-letter it after RETURN_MAX_S."""
        outcome = version_returns.later(self.message, "input", failure, self._app.conf.sluice_return_max_s)
        if not isinstance(outcome, Copy):
            self._give_up(outcome)
            return
        self._outcome = "returned"
        state.task_ready(self)
        self._app.rejections.add(Rejection(self.message, failure, self.acknowledge, None, outcome))

    def _reject_without_reason(self) -> None:
        self._count(self._outcome)
        super().reject(requeue=False)

    def _announce_revoked(self, reason: str, terminated: bool, signum: object, expired: bool) -> None:
        # Celery would ack before storing the result; dead-lettering cannot lose the task in between.
        self._give_up(failures.revoked(reason))
        self._already_revoked = True

    def _success_was_stored(self) -> bool:
        # Celery would query Redis here. The next run's `begin` does, and skips a task in a final state.
        return False

    def _count(self, outcome: str) -> None:
        results(self.name, outcome).inc()
        if self.time_start:
            run_seconds(self.name).observe(max(0.0, time.time() - self.time_start))

    def _log(self, message: str, **fields: object) -> None:
        about = {"task_id": self.id, "request_id": self._request_dict.get("request_id"), "task": self.name}
        log.warning(message, extra={"fields": about | fields})


# Celery's names, from Context; a test compares them with Celery's list.
_CELERYS = {*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}
# The child ended without an answer. Celery requeues the task, unless it ended the child itself.
_LOST = (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)
# Outcome by the repr of the value that `run` returned, which Celery passes to `on_success`.
_OUTCOMES = {repr(end): end.lower() for end in (SUCCESS, FAILURE, RETRY, REVOKED, SKIPPED)}
