"""Celery's pool of threads, extended to handle tasks that raise any BaseException."""

import gc
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency import thread

log = logging.getLogger(__name__)

# Garbage collection with Python's default threshold of 700 took 3% of the time. This threshold collects a third as
# often; it is not higher because tasks may leave large objects in cycles.
GC_THRESHOLD = 2_000


class Waiting(thread.ApplyResult):  # type: ignore[misc]  # celery ships no types
    """A task submitted to the pool."""

    def withdraw(self) -> bool:
        """Prevent the task from starting. Returns False if it has started."""
        return bool(self.f.cancel())


class TaskPool(thread.TaskPool):  # type: ignore[misc]  # celery ships no types
    """Reports every end of a task; Celery's pool would not report an error in its tracer, or SystemExit."""

    # AsyncResult.get() is refused by apps/worker/disabled_celery_api.py, which names our API, and not by Celery
    task_join_will_block = False

    def on_start(self) -> None:
        log.warning(
            "a pool of threads ends no task that runs: time limits do nothing, a cancelled task runs out, a function"
            " that never returns keeps its thread, and C code that holds the GIL stops every thread of this worker;"
            " tasks that must end need WORKER_POOL=prefork"
        )
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # imported modules are never garbage

    def on_apply(  # noqa: PLR0913, PLR0917 - Celery's signature
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., None] = lambda *_: None,
        accept_callback: Callable[[int, float], None] = lambda *_: None,
        error_callback: Callable[..., None] = lambda *_: None,
        **_: Any,
    ) -> Waiting:
        def run() -> None:
            accept_callback(os.getpid(), time.monotonic())
            try:
                answer = target(*args, **kwargs or {})
            except BaseException:  # noqa: BLE001 - the message must be acked or rejected after any error
                error_callback(ExceptionInfo())
            else:
                callback(answer)

        # Celery keeps only a weak reference to `waiting`; `run` keeps it alive until the task ends
        run.waiting = waiting = Waiting(self.executor.submit(run))  # type: ignore[attr-defined]
        return waiting

    def end_descendants(self) -> None:
        """Does nothing: it is unknown which thread started which process."""
