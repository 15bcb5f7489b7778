"""The start and the end of a chaos run: the folder that it may use, and the end of all its processes."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.harness.system import ROOT, until

PYTHON = [sys.executable, "-c"]
# Enters namespaces, and waits for input there.
ENTER = "from tests.chaos import namespaces; namespaces.enter('code', [])"


def _run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False, timeout=60
    )


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("my only copy")
    done = _run(sys.executable, "-m", "tests.chaos", "quick", "--folder", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip().endswith("name another one by --folder, or remove it yourself.")
    assert (tmp_path / "thesis.txt").exists()


def test_folder_of_a_running_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (tmp_path / ".run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _run(sys.executable, "-m", "tests.chaos", "quick", "--folder", str(folder))
    assert done.returncode == 2
    assert done.stderr == f"Another run writes to {folder}: wait for its end, or name another by --folder.\n"


def test_environment_variable_alone_does_not_count_as_inside() -> None:
    done = _run(*PYTHON, "from tests.chaos import namespaces; print(namespaces.inside())", CHAOS_INSIDE="1")
    assert done.stdout == "False\n", done.stderr


def test_missing_program_is_named_before_the_start(tmp_path: Path) -> None:
    done = _run(*PYTHON, ENTER, PATH=str(tmp_path))
    assert "iptables" in done.stderr.splitlines()[-1]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_everything_inside(number: signal.Signals) -> None:
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("needs root to make namespaces")
    with subprocess.Popen([*PYTHON, ENTER], cwd=ROOT, stdin=subprocess.PIPE) as run:
        try:
            us = psutil.Process(run.pid)
            until(lambda: len(us.children(recursive=True)) == 2, what="unshare and the process inside")
            both = us.children(recursive=True)
            run.send_signal(number)
            until(lambda: not any(map(_runs, both)), what="the end of the processes inside")
            assert run.wait(10) == {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}[number]
        finally:
            run.kill()
