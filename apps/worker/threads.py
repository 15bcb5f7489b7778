"""Celery's pool of threads, with a way out for a task that ends in no ordinary way."""

import gc
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency import thread

log = logging.getLogger(__name__)

# Looking for cycles after each 700 new objects, Python's own number, took 3% of the time. A third of the looks: what
# tasks leave in cycles is a team's own, may be large, and waits that much longer.
GC_THRESHOLD = 2_000


class Waiting(thread.ApplyResult):  # type: ignore[misc]  # celery ships no types
    """A task given to the pool."""

    def withdraw(self) -> bool:
        """Keep the task from starting. False: it has started."""
        return bool(self.f.cancel())


class TaskPool(thread.TaskPool):  # type: ignore[misc]  # celery ships no types
    """Tells the request of every end; Celery's would keep an exception of the trace, or a SystemExit, to itself."""

    # Celery's own refusal of AsyncResult.get() names its documentation; ours names our API (apps/worker/celery_api.py)
    task_join_will_block = False

    def on_start(self) -> None:
        log.warning(
            "a pool of threads ends no task that runs: time limits do nothing, a cancelled task runs out, a function"
            " that never returns keeps its thread, and C code that holds the GIL stops every thread of this worker;"
            " tasks that must end need WORKER_POOL=prefork"
        )
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # what was imported stays

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
            except BaseException:  # noqa: BLE001 - whatever it is, the message must be answered
                error_callback(ExceptionInfo())
            else:
                callback(answer)

        # Celery keeps a weak reference to it: `run`, which the executor drops at the task's end, keeps it alive
        run.waiting = waiting = Waiting(self.executor.submit(run))  # type: ignore[attr-defined]
        return waiting

    def end_descendants(self) -> None:
        """Nothing: nobody knows which thread started what."""
