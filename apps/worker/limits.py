"""Time limits and cancellation of a task, as the process of the pool that runs it sees them.

    pool process: slot.start --> function --> slot.stop         (apps/worker/slots.py)
                                    ^ SIGUSR2: raises Cancelled or SoftTimeLimitExceeded inside
    main process: apps/worker/watchdog.py; what does not end by this is killed from there

Celery's own limits run from the moment the process got the message: a Redis outage, in which `begin` or `end` waits,
would count, and turn an accepted task into a FAILURE. Here they run from the start of the function to its end.
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

# billiard uses SIGUSR1 itself, and tasks SIGALRM.
INTERRUPT = signal.SIGUSR2


class Cancelled(BaseException):
    """Raised in a task that was cancelled; no `except Exception` of its own keeps it."""


class Limits:
    """Of one process, which runs one task at a time.

    In a pool of threads nothing is limited: no thread can be ended, or interrupted, from outside.
    """

    def __init__(self) -> None:
        self.slots: Slots | None = None
        """Of the pool; set before its processes are forked."""
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
        """Report what this process runs in this slot, and be interrupted by the signal."""
        self._slot = slot
        signal.signal(INTERRUPT, self._on_signal)

    def note(self, task_id: str) -> None:
        """Called before a task begins: a cancel may come, and its message be lost, from the moment that it has."""
        if self._slot:
            self._slot.note(task_id)

    @contextmanager
    def running(self, soft_s: float | None, hard_s: float) -> Iterator[None]:
        """Hold the block to these limits. Raises Cancelled and, after `soft_s`, SoftTimeLimitExceeded inside."""
        slot = self._slot
        self._raised = None
        if slot is None:
            yield
            return
        # A task may have blocked it for good; what is blocked is neither raised nor lost.
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
        """Whether a cancel ended the last run by this error; a task may raise Cancelled itself."""
        if not isinstance(self._raised, Cancelled):
            return False
        if is_a(exc, BaseExceptionGroup):  # of an asyncio.TaskGroup
            return any(map(self.cancelled_by, exc.exceptions))  # type: ignore[attr-defined]
        return is_a(exc, Cancelled)

    def end_descendants(self) -> list[str]:
        """End the processes that the last run started, where it was interrupted and did not succeed.

        Answers their names. Then this process is replaced after its task: a process pool that was ended here would fail
        the next task that uses it.
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
        """Whether this process is to end after its task."""
        return self._slot is not None and self._slot.retires

    def _on_signal(self, *_: object) -> None:
        if not self._interruptible or self._slot is None:
            return
        if self._slot.is_cancelled(self._started_s):
            self._interruptible = False  # once: what the task then cleans up is not interrupted
            self._raised = Cancelled()
            raise self._raised
        if time.monotonic() >= self._soft_at_s:
            self._soft_at_s = NEVER_S
            self._raised = SoftTimeLimitExceeded(self._soft_s)
            raise self._raised
