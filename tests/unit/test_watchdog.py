"""The watchdog in the main process: why a pool process ended, and which run it ended."""

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from apps.worker.slots import NEVER_S, Run, Slot, Slots
from apps.worker.watchdog import TICK_S, Ended, Reason, Watchdog
from ops.servers.child import until


@pytest.fixture
def slots() -> Slots:
    return Slots(1)


@pytest.fixture
def watchdog(slots: Slots) -> Watchdog:
    return Watchdog(slots)


@pytest.fixture
def process(watchdog: Watchdog) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        watchdog.watch(0, process.pid)
        yield process
        process.kill()


def start(slot: Slot, soft_at_s: float = NEVER_S, hard_at_s: float = NEVER_S) -> Run:
    slot.note("a")
    slot.start(time.monotonic(), soft_at_s, hard_at_s)
    run = slot.read()
    assert run
    return run


def test_idle_process_has_no_reason_and_is_forgotten_once(
    watchdog: Watchdog, process: "subprocess.Popen[bytes]"
) -> None:
    assert watchdog.forget(process.pid) == Ended(None, None, retired=False)
    assert watchdog.forget(process.pid) is None


def test_hard_limit_is_the_reason_if_the_run_was_killed(
    watchdog: Watchdog, slots: Slots, process: "subprocess.Popen[bytes]"
) -> None:
    run = start(slots[0], hard_at_s=time.monotonic())
    watchdog.start()
    process.wait(10)
    assert watchdog.forget(process.pid) == Ended(Reason.HARD_LIMIT, run, retired=False)


@pytest.mark.parametrize("after", [Slot.stop, start], ids=["nothing runs", "the next one runs"])
def test_hard_limit_is_not_the_reason_if_the_run_ended_before_the_signal(
    watchdog: Watchdog, slots: Slots, process: "subprocess.Popen[bytes]", after: Callable[[Slot], object]
) -> None:
    """The run ended between the watchdog's check and its signal: its result is stored, or the task runs again."""
    start(slots[0], hard_at_s=time.monotonic())
    watchdog.start()
    process.wait(10)
    after(slots[0])
    ended = watchdog.forget(process.pid)
    assert ended
    assert ended.reason is None


def test_limit_of_the_next_run_counts_from_its_own_start(
    watchdog: Watchdog, slots: Slots, process: "subprocess.Popen[bytes]"
) -> None:
    watchdog.start()
    for _ in range(3):
        earlier = start(slots[0], hard_at_s=time.monotonic() + 1)
        slots[0].stop()
    start(slots[0], hard_at_s=time.monotonic() + 60)
    until(lambda: time.monotonic() > earlier.hard_at_s + TICK_S, 10, "the limits of the earlier runs")
    assert process.poll() is None


def test_process_is_killed_for_a_cancel_only_while_the_task_runs(
    monkeypatch: pytest.MonkeyPatch, watchdog: Watchdog, slots: Slots
) -> None:
    monkeypatch.setattr("apps.worker.watchdog.KILL_AFTER_S", 0.5)
    with subprocess.Popen(["sh", "-c", "trap '' USR2; sleep 60"]) as process:
        until(lambda: "sleep" in _children(process.pid), 10, "the trap")
        watchdog.watch(0, process.pid)
        watchdog.start()
        run = start(slots[0])
        watchdog.cancel("a")
        until(lambda: slots[0].is_cancelled(run.started_s), 10, "the cancel")
        slots[0].stop()
        time.sleep(1.1)  # beyond the 0.5 s and a tick
        assert process.poll() is None
        again = start(slots[0])
        process.wait(10)
        assert watchdog.forget(process.pid) == Ended(Reason.CANCELLED, again, retired=False)


def _children(pid: int) -> str:
    return subprocess.run(["ps", "--ppid", str(pid), "-o", "comm="], capture_output=True, text=True, check=False).stdout
