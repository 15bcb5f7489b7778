"""Finds the processes that a task has started; tests/integration/test_limits.py tests the ways to start them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from apps.worker import descendants
from apps.worker.slots import NEVER_S
from ops.servers.child import until


@pytest.fixture
def leader() -> Iterator[descendants.Process]:
    """A pool process that runs each line that it reads as a command, and prints the pid."""
    code = """
import subprocess, sys
from apps.worker import descendants
descendants.become_leader()
print(flush=True)
for line in sys.stdin:
    print(subprocess.Popen(line, shell=True, stdout=subprocess.DEVNULL).pid, flush=True)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        found = descendants.process(process.pid)
        assert found
        PIPES[process.pid] = process
        yield found
        del PIPES[process.pid]
        process.kill()


PIPES: dict[int, "subprocess.Popen[str]"] = {}


def start(leader: descendants.Process, command: str) -> int:
    process = PIPES[leader.pid]
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"exec {command}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def is_alive(pid: int) -> bool:
    found = descendants.process(pid)
    return found is not None and found.state != "Z"


def test_process_with_a_misleading_name_is_parsed(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        until(lambda: "S 1" in Path(f"/proc/{process.pid}/comm").read_text(), 10, "the program")
        found = descendants.process(process.pid)
        assert found
        assert (found.name, found.parent, found.group) == (program.name, os.getpid(), os.getpgrp())
        process.kill()
    assert descendants.process(process.pid) is None


def test_leader_and_all_its_descendants_are_ended(leader: descendants.Process) -> None:
    since_s = time.monotonic()
    pids = [start(leader, command) for command in ("sleep 60", "setsid sleep 60", "env -i setsid sleep 60")]
    ended = descendants.end(leader, since_s)
    assert len(ended) == len(pids)
    assert not any(map(is_alive, [leader.pid, *pids]))


def test_end_started_by_keeps_the_leader(leader: descendants.Process) -> None:
    since_s = time.monotonic()
    pid = start(leader, "sleep 60")
    descendants.end_started_by(leader, since_s)
    assert (is_alive(leader.pid), is_alive(pid)) == (True, False)


def test_programs_of_earlier_tasks_are_kept_and_helpers_of_multiprocessing_are_ended(
    leader: descendants.Process,
) -> None:
    code = f"{sys.executable} -c 'import time; time.sleep(60) # from multiprocessing.spawn'"
    program, helper, daemon = start(leader, "sleep 60"), start(leader, code), start(leader, f"setsid {code}")
    until(lambda: b"multi" in Path(f"/proc/{helper}/cmdline").read_bytes(), 10, "Python")
    until(lambda: os.getsid(daemon) == daemon, 10, "its session")
    descendants.end(leader, NEVER_S)
    assert [is_alive(pid) for pid in (program, helper, daemon)] == [True, False, True]
    for pid in (program, daemon):
        os.kill(pid, signal.SIGKILL)


def test_unrelated_processes_are_kept(leader: descendants.Process) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        descendants.end(leader, 0.0)
        assert stranger.poll() is None
        stranger.kill()


def test_process_that_reuses_the_pid_is_kept(leader: descendants.Process) -> None:
    descendants.end(leader._replace(started_ticks=leader.started_ticks - 1), time.monotonic())
    assert is_alive(leader.pid)


def test_descendants_are_found_by_session_and_tree_without_a_mark(
    monkeypatch: pytest.MonkeyPatch, leader: descendants.Process
) -> None:
    monkeypatch.setattr(descendants, "_MARK_US", 10**30)  # a mark that no process has
    since_s = time.monotonic()
    pids = [start(leader, "setsid sleep 60"), start(leader, "sh -c 'sleep 60 & exec sleep 60'")]
    descendants.end(leader, since_s)
    with suppress(ProcessLookupError):
        assert not any(map(is_alive, pids))
