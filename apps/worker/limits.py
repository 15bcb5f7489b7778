"""Time limits and cancellation of a task, in the process of the pool that runs it.

    pool process: slot.start --> function --> slot.stop         (apps/worker/slots.py)
                                    ^ SIGUSR2: raises Cancelled or SoftTimeLimitExceeded inside
    main process: apps/worker/watchdog.py; it kills a task that does not end after the signal

Celery's limits start when the process receives the message. They would include the time that `begin` and `end` wait for
Redis, and an outage of Redis would make accepted tasks FAILURE. These limits apply to the function only.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from billiard.process import current_process
from celery.exceptions import SoftTimeLimitExceeded

from apps.worker import descendants
from apps.worker.outcome import is_a
from apps.worker.slots import NEVER_S, Slot, Slots

# Not SIGUSR1, which billiard uses, and not SIGALRM, which tasks may use.
INTERRUPT = signal.SIGUSR2


class Cancelled(BaseException):
    """Raised inside of a cancelled task. It is a BaseException: a task's `except Exception` does not catch it."""


class Limits:
    """Limits of one process, which runs one task at a time.

    A pool of threads has no limits: a thread cannot be killed or interrupted from outside.
    """

    def __init__(self) -> None:
        self.slots: Slots | None = None
        """The slots of the pool; set before its processes are forked."""
        self._slot: Slot | None = None
        self._interruptible = False
        self._started_s = 0.0
        self._soft_s = 0.0
        self._soft_at_s = NEVER_S
        self._raised: BaseException | None = None

    def enter_pool(self) -> None:
        """Called once in each process of the pool, by its main thread."""
        if self.slots:
            self.use(self.slots[current_process().index])

    def use(self, slot: Slot) -> None:
        """Report running tasks in this slot, and handle the signal INTERRUPT."""
        self._slot = slot
        signal.signal(INTERRUPT, self._on_signal)

    def note(self, task_id: str) -> None:
        """Set the id of the next task. Call it before `begin`, after which a cancel may come and get lost."""
        if self._slot:
            self._slot.note(task_id)

    @contextmanager
    def running(self, soft_s: float | None, hard_s: float) -> Iterator[None]:
        """Apply limits to the block. Raises Cancelled and, after `soft_s`, SoftTimeLimitExceeded inside of it."""
        slot = self._slot
        self._raised = None
        if slot is None:
            yield
            return
        # An earlier task may have blocked the signal; a blocked signal stays pending.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (INTERRUPT,))
        self._started_s = started_s = time.monotonic()
        self._soft_s = soft_s or NEVER_S
        self._soft_at_s = started_s + self._soft_s
        try:
            try:
                self._interruptible = True
                slot.start(started_s, self._soft_at_s, started_s + hard_s)
                yield
            finally:
                self._interruptible = False
        finally:
            slot.stop()

    def cancelled_by(self, exc: BaseException) -> bool:
        """Whether a cancel caused this error of the last run; a task may also raise Cancelled itself."""
        if not isinstance(self._raised, Cancelled):
            return False
        if is_a(exc, BaseExceptionGroup):  # raised by asyncio.TaskGroup
            return any(map(self.cancelled_by, exc.exceptions))  # type: ignore[attr-defined]
        return is_a(exc, Cancelled)

    def end_descendants(self) -> list[str]:
        """Kill the processes that the last run started, if it was interrupted. Call it if the run did not succeed.

        Returns their names. If there are any, this process is replaced after its task: a process pool whose processes
        were killed would fail the next task that uses it.
        """
        this = descendants.process(os.getpid())
        if self._raised is None or self._slot is None or this is None:
            return []
        ended = descendants.end_started_by(this, self._started_s)
        if ended:
            self._slot.retire()
        return ended

    @property
    def retires(self) -> bool:
        """Whether this process must end after its task."""
        return self._slot is not None and self._slot.retires

    def _on_signal(self, *_: object) -> None:
        if not self._interruptible or self._slot is None:
            return
        if self._slot.is_cancelled(self._started_s):
            self._interruptible = False  # only once: do not interrupt the task's clean-up
            self._raised = Cancelled()
            raise self._raised
        if time.monotonic() >= self._soft_at_s:
            self._soft_at_s = NEVER_S
            self._raised = SoftTimeLimitExceeded(self._soft_s)
            raise self._raised
