"""Kills tasks from the worker's main process, whatever their code does: at hard time limits and after cancels.

    slots: what each process of the pool runs --> this thread --> soft limit, cancel: a signal (apps/worker/limits.py)
    apps/worker/cancel.py: ids of cancelled tasks -->   |
                                                        `--> hard limit, or KILL_AFTER_S after a cancel: SIGKILL to the
                                                             process and its task's descendants

The watchdog has its own thread, as the main thread may block on the broker. It blocks only on timers and /proc.
"""

import logging
import os
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from apps.worker import descendants
from apps.worker.limits import INTERRUPT
from apps.worker.slots import NEVER_S, Run, Slots

log = logging.getLogger(__name__)

# Interval between reads of the slots: below the shortest limit, 1 s.
TICK_S = 0.5
# Time for a cancelled task to clean up before its process is killed.
KILL_AFTER_S = 10.0
REMEMBERED = 1000


class Reason(Enum):
    """Why the watchdog kills a process of the pool; the value is the text in the log."""

    HARD_LIMIT = "its task ran for longer than its hard time limit"
    CANCELLED = f"its task was cancelled, and went on for {KILL_AFTER_S:.0f} s"
    HANDED_BACK = "the connection to the broker was lost, and the broker gives its task to another worker"


class Ended(NamedTuple):
    """How a process of the pool ended; `run` is the function that was running."""

    reason: Reason | None
    run: Run | None
    retired: bool


@dataclass
class Watched:
    """A process of the pool. It is killed at `kill_at_s` because of `run`."""

    index: int
    process: descendants.Process
    reason: Reason | None = None
    run: Run | None = None
    kill_at_s: float = NEVER_S
    killed: bool = False
    soft_signalled: Run | None = None


class Watchdog:
    """The watchdog thread of a worker with a pool of processes; runs in its main process."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._watched: dict[int, Watched] = {}
        # recently cancelled ids: a cancel may arrive before its task begins here
        self._cancelled: dict[str, None] = {}
        # processes to kill, and the start time of their task
        self._to_end: deque[tuple[descendants.Process, float]] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._serve, name="watchdog", daemon=True).start()

    def watch(self, index: int, pid: int) -> None:
        """Watch a new process of the pool."""
        process = descendants.process(pid)
        if process:
            with self._lock:
                self._watched[pid] = Watched(index, process)

    def forget(self, pid: int) -> Ended | None:
        """A process of the pool has ended: kill its helpers, and the descendants of the task that it ran."""
        with self._lock:
            watched = self._watched.pop(pid, None)
            if watched is None:
                return None
            slot = self._slots[watched.index]
            run = slot.read()
            handed_back = watched.reason is Reason.HANDED_BACK
            killed_for = watched.run if watched.killed else None
            reason = watched.reason if handed_back or (run and killed_for == run) else None
            if not watched.killed:
                self._end(watched, watched.run if handed_back else run)
                self._changed.set()
            return Ended(reason, run, slot.retires)

    def cancel(self, task_id: str) -> None:
        """Interrupt the task, now or when it starts; kill it if it does not end."""
        with self._lock:
            self._cancelled[task_id] = None
            if len(self._cancelled) > REMEMBERED:
                del self._cancelled[next(iter(self._cancelled))]
        self._changed.set()

    def noted(self) -> list[str]:
        """The id of the last task that each process began."""
        with self._lock:
            return [noted for each in self._watched.values() if (noted := self._slots[each.index].noted)]

    def hand_back(self, pid: int) -> None:
        """Ensure that a process which was asked to end does so, with the descendants of its task."""
        with self._lock:
            watched = self._watched.get(pid)
            if watched and not watched.killed:
                # the task may end before the kill: the process must not take another task, which would be killed
                self._slots[watched.index].retire()
                self._end_later(watched, self._slots[watched.index].read(), Reason.HANDED_BACK)

    def end_descendants(self) -> None:
        """Kill the descendants of running tasks, and suspend the tasks' processes: the worker exits immediately."""
        with self._lock:
            for watched in self._watched.values():
                run = self._slots[watched.index].read()
                if run:
                    _signal(watched, signal.SIGSTOP)
                    descendants.end_started_by(watched.process, run.started_s)

    def stop(self) -> None:
        """The pool has stopped: kill the helpers of its processes."""
        with self._lock:
            for watched in self._watched.values():
                self._end(watched, None)
        self._end_all()

    def _serve(self) -> None:
        wait_s = TICK_S
        while True:
            self._changed.wait(wait_s)
            self._changed.clear()
            try:
                wait_s = self._look()
            except Exception:  # without this thread, no limit is enforced
                log.exception("watchdog failed")
                wait_s = TICK_S

    def _look(self) -> float:
        """Perform due actions. Returns the seconds until the next one."""
        with self._lock:
            due_s = [self._look_at(watched) for watched in self._watched.values()]
        self._end_all()
        return max(0.0, min([TICK_S, *(at_s - time.monotonic() for at_s in due_s)]))

    def _end_all(self) -> None:
        while True:
            with self._lock:
                if not self._to_end:
                    return
                process, since_s = self._to_end.popleft()
            ended = descendants.end(process, since_s)
            if ended:
                log.warning("ended what tasks had started", extra={"fields": {"processes": ended}})

    def _look_at(self, watched: Watched) -> float:
        """Perform due actions for a process. Returns the time of the next one."""
        if watched.killed:
            return NEVER_S
        now_s, run = time.monotonic(), self._slots[watched.index].read()
        if watched.reason is Reason.CANCELLED and watched.run != run:
            watched.reason, watched.run, watched.kill_at_s = None, None, NEVER_S
        if now_s >= watched.kill_at_s:
            self._end(watched, watched.run)
        elif run and now_s >= run.hard_at_s:
            watched.reason = Reason.HARD_LIMIT
            self._end(watched, run)
        elif run and run.task_id in self._cancelled and watched.reason is None:
            self._slots[watched.index].cancel(run)
            _signal(watched, INTERRUPT)
            self._end_later(watched, run, Reason.CANCELLED)
        elif run and now_s >= run.soft_at_s and watched.soft_signalled != run:
            watched.soft_signalled = run
            _signal(watched, INTERRUPT)
        if watched.killed:
            return NEVER_S
        soft_at_s = run.soft_at_s if run and watched.soft_signalled != run else NEVER_S
        return min(watched.kill_at_s, soft_at_s, run.hard_at_s if run else NEVER_S)

    def _end_later(self, watched: Watched, run: Run | None, reason: Reason) -> None:
        watched.run, watched.reason = run, reason
        watched.kill_at_s = time.monotonic() + KILL_AFTER_S

    def _end(self, watched: Watched, run: Run | None) -> None:
        watched.killed, watched.run = True, run
        self._to_end.append((watched.process, run.started_s if run else NEVER_S))


def _signal(watched: Watched, number: int) -> None:
    with suppress(OSError):  # it has ended
        os.kill(watched.process.pid, number)
