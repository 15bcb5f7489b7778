"""Time limits and cancellation inside a pool process."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from apps.worker.limits import INTERRUPT, Cancelled, Limits
from apps.worker.slots import Slot, Slots

# A limit that no test reaches.
NEVER_S = 120
TASK = "01a229e5-b305-7b36-ad87-4bf64c271f47-78c7b177b5459adb"
GROUP = BaseExceptionGroup("of a TaskGroup", [ValueError(), BaseExceptionGroup("inner", [Cancelled()])])


@pytest.fixture
def slot() -> Slot:
    return Slots(1)[0]


@pytest.fixture
def limits(slot: Slot) -> Iterator[Limits]:
    before = signal.getsignal(INTERRUPT)
    limits = Limits()
    limits.use(slot)
    yield limits
    signal.signal(INTERRUPT, before)


def interrupt() -> None:
    os.kill(os.getpid(), INTERRUPT)
    time.sleep(0)  # the handler runs before the next line


def cancel(slot: Slot) -> None:
    """Cancel the run as the main process does."""
    run = slot.read()
    assert run
    slot.cancel(run)
    interrupt()


def test_slot_contains_the_run_while_it_lasts(slot: Slot, limits: Limits) -> None:
    limits.note(TASK)
    assert (slot.noted, slot.read()) == (TASK, None)
    before_s = time.monotonic()
    with limits.running(2, 5):
        run = slot.read()
    assert run
    assert run.task_id == TASK
    assert before_s <= run.started_s <= time.monotonic()
    assert (run.soft_at_s, run.hard_at_s) == (run.started_s + 2, run.started_s + 5)
    assert slot.read() is None


def test_cleared_slot_contains_nothing_of_the_earlier_process(slot: Slot, limits: Limits) -> None:
    limits.note(TASK)
    slot.start(1.0, 2.0, 3.0)
    slot.retire()
    slot.clear()
    assert (slot.noted, slot.read(), slot.retires) == ("", None, False)


def test_slots_are_shared_with_forked_processes_and_separate_from_each_other() -> None:
    slots = Slots(2)
    pid = os.fork()
    if not pid:
        slots[1].note(TASK)
        os._exit(0)
    os.waitpid(pid, 0)
    assert (slots[0].noted, slots[1].noted) == ("", TASK)


def test_soft_limit_is_raised_once_and_not_early(limits: Limits) -> None:
    with limits.running(None, NEVER_S):
        interrupt()
    with limits.running(NEVER_S, 2 * NEVER_S):
        interrupt()
    with pytest.raises(SoftTimeLimitExceeded), limits.running(1e-9, NEVER_S):
        interrupt()
    with limits.running(1e-9, NEVER_S):
        with pytest.raises(SoftTimeLimitExceeded):
            interrupt()
        interrupt()


def test_signal_outside_of_a_run_is_ignored(slot: Slot, limits: Limits) -> None:
    interrupt()
    with pytest.raises(Cancelled), limits.running(1e-9, NEVER_S):
        cancel(slot)
    interrupt()


def test_cancel_is_raised_once_and_only_in_its_run(slot: Slot, limits: Limits) -> None:
    with limits.running(1e-9, NEVER_S):
        with pytest.raises(Cancelled):
            cancel(slot)
        interrupt()  # the cleanup is not interrupted again, not even by the soft limit
    with limits.running(None, NEVER_S):
        interrupt()


def test_signal_blocked_by_an_earlier_task_is_delivered(slot: Slot, limits: Limits) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {INTERRUPT})
    with pytest.raises(Cancelled), limits.running(None, NEVER_S):
        cancel(slot)


@pytest.mark.parametrize("error", [Cancelled(), GROUP])
def test_error_counts_as_cancellation_only_after_a_cancel(slot: Slot, limits: Limits, error: BaseException) -> None:
    with limits.running(None, NEVER_S):
        pass
    assert not limits.cancelled_by(error)
    with pytest.raises(Cancelled), limits.running(None, NEVER_S):
        cancel(slot)
    assert limits.cancelled_by(error)
    assert not limits.cancelled_by(ValueError())
    with limits.running(None, NEVER_S):
        pass
    assert not limits.cancelled_by(error)


def test_nothing_is_limited_without_a_slot() -> None:
    limits = Limits()
    limits.note(TASK)
    with limits.running(1e-9, 1e-9):
        pass
    assert limits.end_descendants() == []
    assert not limits.retires
