"""A child process: it is ready on a condition, ends with its own children, and is never left behind."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.command import Unusable
from ops.servers.child import Child, until

Start = Callable[[str], Child]
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def started(code: str) -> Child:
        child = Child("it", [sys.executable, "-c", code], log=tmp_path / "it.log", env=os.environ)
        children.append(child)
        child.start()
        return child

    yield started
    for child in children:
        child.kill()


def test_until_names_its_condition() -> None:
    with pytest.raises(TimeoutError, match="the moon took more than 0 s"):
        until(lambda: False, 0, "the moon")


def test_child_that_ends_during_its_start_shows_its_log(start: Start) -> None:
    child = start("raise SystemExit('no such thing')")
    with pytest.raises(Unusable, match=r"it ended while starting; its log .* ends:\nno such thing"):
        child.ready(lambda: False, 20)


def test_child_that_is_never_ready_is_one_sentence(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    with pytest.raises(Unusable, match="it did not answer within 0 s"):
        child.ready(lambda: False, 0.2)


def test_child_that_ignores_sigterm_is_killed(start: Start) -> None:
    child = start(IGNORES_SIGTERM)
    child.ready(lambda: "on" in child.last_lines(), 20)
    assert not child.stop(deadline_s=0.2)
    assert not child.alive


def test_wait_returns_the_exit_status(start: Start) -> None:
    child = start("raise SystemExit(3)")
    assert child.wait() == child.wait() == 3
    assert not child.alive


def test_suspended_child_can_be_stopped(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    child.suspend()
    assert child.stop()
    assert not child.alive


def test_children_of_a_killed_child_end_too(start: Start) -> None:
    child = start(
        "import subprocess; import time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    until(lambda: child.last_lines().strip().isdecimal(), 20, "the pid of its child")
    grandchild = int(child.last_lines())
    child.kill()
    until(lambda: not _runs(grandchild), 10, "the end of its child")


def test_missing_program_is_named_in_the_error(tmp_path: Path) -> None:
    child = Child("it", [tmp_path / "none"], log=tmp_path / "it.log", env={})
    with pytest.raises(Unusable, match=r"none.*No such file"):
        _run(child)
    child.kill()


def _run(child: Child) -> None:
    child.start()  # if it is started through setpriv, the error comes later
    child.ready(lambda: False, 20)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
