"""Celery's pool of processes, extended: tasks may start processes, a watchdog kills tasks, replacements are logged.

    main process --fork--> process of the pool --(processes of a task)--> found by apps/worker/descendants.py
         `-- watchdog: limits and cancellation (apps/worker/watchdog.py)

Celery has no hook for the end of a process and its reason, so this module subclasses its pool and billiard's.
"""

import logging
import multiprocessing.process
import sys
from functools import partial
from typing import Any

from billiard.common import human_status
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from billiard.pool import EX_RECYCLE, RUN
from celery.concurrency import asynpool, prefork

from apps.worker import cancel, descendants
from apps.worker.limits import Limits
from apps.worker.slots import Slots
from apps.worker.watchdog import Ended, Reason, Watchdog

log = logging.getLogger(__name__)

# multiprocessing's object for the importing process, the main one, which may have children.
_MAIN_PROCESS = multiprocessing.process.current_process()


class HardLimitError(WorkerLostError):  # type: ignore[misc]  # billiard ships no types
    """The process was killed at its task's hard time limit."""


class Worker(asynpool.Worker):  # type: ignore[misc]
    """The loop of a process of the pool: wait for a task, run it."""

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:
        self._limits = limits
        super().__init__(*args, **kwargs)

    def _make_child_methods(self, *args: Any) -> None:
        super()._make_child_methods(*args)
        wait_for_job: Any = self.wait_for_job  # type: ignore[has-type]  # set above
        limits = self._limits

        def wait_unless_retired() -> Any:
            if limits.retires:
                sys.exit(EX_RECYCLE)
            return wait_for_job()

        self.wait_for_job = wait_unless_retired


class Pool(asynpool.AsynPool):  # type: ignore[misc]
    """The pool in the main process."""

    def __init__(self, slots: Slots, watchdog: Watchdog, limits: Limits, *args: Any, **kwargs: Any) -> None:
        self._slots = slots
        self._watchdog = watchdog
        self._ends: dict[int, Ended] = {}
        self.Worker = partial(Worker, limits)
        super().__init__(*args, **kwargs)

    def _create_worker_process(self, i: int) -> Any:
        self._slots[i].clear()
        process = super()._create_worker_process(i)
        process._controlled_termination = True  # noqa: SLF001 - billiard would log its end too, with less detail
        self._watchdog.watch(i, process.pid)
        return process

    def process_flush_queues(self, proc: Any) -> None:
        """Called after the process has ended, before its job is marked as lost; also when its pipes are replaced."""
        super().process_flush_queues(proc)
        if proc.exitcode is None:
            return
        ended = self._watchdog.forget(proc.pid)
        if ended:
            self._ends[proc.pid] = ended
            if self._state == RUN:
                self._log_replaced(proc, ended)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        """Called for the job of a process that ended without a result."""
        ended = self._ends.get(pid)
        if ended is None or ended.reason is not Reason.HARD_LIMIT:
            super().on_job_process_lost(job, pid, exitcode)
            return
        try:
            raise HardLimitError  # noqa: TRY301 - ExceptionInfo() reads the exception being handled
        except HardLimitError:
            job._set(None, (False, ExceptionInfo()))  # noqa: SLF001 - as billiard does

    def _join_exited_workers(self, shutdown: bool = False) -> Any:  # noqa: FBT001, FBT002 - billiard's signature
        try:
            return super()._join_exited_workers(shutdown)
        finally:
            alive = {process.pid for process in self._pool}
            self._ends = {pid: ended for pid, ended in self._ends.items() if pid in alive}

    def flush(self) -> None:
        """Called when the connection to the broker is lost, after the tasks known to run were asked to end.

        Ends the processes that have received a task and have not reported its start yet: Celery would forget such a
        task, and the broker redelivers it to another worker.
        """
        for job in tuple(self._cache.values()):
            process = job._write_to  # noqa: SLF001
            if process and not job._accepted and process._is_alive():  # noqa: SLF001
                self.terminate_job(process.pid)
        super().flush()

    def destroy_queues(self, queues: Any, proc: Any) -> Any:
        """Called when the pipes of a killed process are closed, as it may have read part of a message.

        Celery leaves the number of the result pipe in its index. A new pipe may get the same number. At the next
        connection to the broker, Celery registers all numbers of the index with its event loop, which then blocks
        when it reads that pipe.
        """
        for number in [number for number, owner in self._fileno_to_outq.items() if owner is proc]:
            del self._fileno_to_outq[number]
        return super().destroy_queues(queues, proc)

    def terminate_job(self, pid: int, sig: int | None = None) -> None:
        """Called for each running task when the connection to the broker is lost."""
        super().terminate_job(pid, sig)
        self._watchdog.hand_back(pid)

    def _log_replaced(self, process: Any, ended: Ended) -> None:
        about: dict[str, object] = {"pool_process": process.pid, "exit": human_status(process.exitcode)}
        if ended.run:
            about["task_id"] = ended.run.task_id
        level = logging.WARNING
        if ended.reason:
            reason = ended.reason.value
        elif ended.retired:
            reason = "its task was interrupted, and what that had started was ended"
        elif process.exitcode == EX_RECYCLE:
            level = logging.INFO
            reason = "after its task it used more memory than WORKER_MAX_MEMORY_MIB"
            if self._maxtasksperchild:
                reason = f"it has run {self._maxtasksperchild} tasks, or {reason}"
        else:
            level = logging.ERROR
            when = " before it was ready" if process in self._waiting_to_start else ""
            reason = f"it was lost{' while it ran a task' if ended.run else when}"
        log.log(level, "pool process replaced", extra={"fields": about | {"reason": reason}})


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """The pool class that Celery's worker starts."""

    def on_start(self) -> None:
        slots = self.app.limits.slots = Slots(self.limit)
        self._watchdog = Watchdog(slots)
        self.Pool = partial(Pool, slots, self._watchdog, self.app.limits)
        super().on_start()
        self._watchdog.start()
        cancel.listen(self._watchdog, self.app.redis_url)

    def on_stop(self) -> None:
        super().on_stop()
        self._watchdog.stop()

    def on_terminate(self) -> None:
        super().on_terminate()
        self._watchdog.stop()

    def end_descendants(self) -> None:
        """Kill the descendants of running tasks; called when the worker exits without waiting for the tasks."""
        self._watchdog.end_descendants()


def enter_pool() -> None:
    """Called once in each process of the pool, by its main thread."""
    descendants.become_leader()
    # billiard marks it as a daemonic process, which may not have children
    multiprocessing.process._current_process = _MAIN_PROCESS  # type: ignore[attr-defined]  # noqa: SLF001
