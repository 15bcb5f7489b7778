"""`make e2e` runs pytest twice in parallel; together the runs contain every test, and one failure fails both."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.servers.child import until
from tests.e2e import system
from tests.harness.system import ROOT
from tests.harness.thorough import thorough

RUNS = ("E2E_SCALING", "E2E_ORIGINAL")
TIMEOUT_S = 120
# passes only if both runs overlap
MEETING = """
import os
from pathlib import Path
from ops.servers.child import until

def test_meet():
    Path("{folder}/{own}").write_text(os.environ["CLUSTER_STATE"])
    until(Path("{folder}/{other}").exists, 60, "the other run")

def test_end():
    {end}
"""
WAITING = """
import time
from pathlib import Path
import pytest

@pytest.fixture
def cluster():
    Path("{folder}/started").touch()
    yield
    Path("{folder}/stopped").touch()

def test_wait(cluster):
    time.sleep(120)
"""
linux = pytest.mark.skipif(not shutil.which("setpriv"), reason="needs Linux: only there `make e2e` runs two clusters")


def make(*arguments: str | Path) -> list[str]:
    """Return the command line of a make target that needs no installation."""
    return ["make", "--no-print-directory", f"BIN={Path(sys.executable).parent}", *map(str, arguments)]


def variable(name: str) -> list[str]:
    """Return the words of a variable of the Makefile."""
    command = make("--silent", "--eval", f"show:;@echo $({name})", "show")
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def ids_in(path: Path) -> list[str]:
    """Return the ids of a file's tests, without their parameters."""
    name = path.relative_to(ROOT)
    return [f"{name}::{test}" for test in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)]


def test_every_test_is_in_exactly_one_run() -> None:
    tests = [test for path in sorted((ROOT / "tests/e2e").rglob("test_*.py")) for test in ids_in(path)]
    named = [each for name in RUNS for each in variable(name)]
    runs = {test: [each for each in named if f"{test}::".startswith(f"{each}::")] for test in tests}
    assert {test: found for test, found in runs.items() if len(found) != 1} == {}
    assert {each for found in runs.values() for each in found} == set(named)


def test_no_test_of_workers_runs_between_the_two_tests_of_the_original_burst() -> None:
    parts = [re.sub(r".*/test_(\w+)\.py", r"\1", name) for name in variable("E2E_ORIGINAL")]
    first, last = (
        parts.index("original::test_burst_is_accepted"),
        parts.index("original::test_two_workers_finish_the_burst_without_scaling"),
    )
    assert set(parts[first + 1 : last]) == {"cluster", "admission", "network", "existing", "keda", "flux"}


@pytest.mark.thorough
def test_original_burst_is_posted_once() -> None:
    command = [sys.executable, "-m", "pytest", "--setup-plan", *variable("E2E_ORIGINAL")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert len(re.findall(r"SETUP +S original\b", done.stdout)) == 1


def test_keys_of_the_ledger_equal_those_that_the_tasks_write() -> None:
    text = (ROOT / "tests/e2e/overlays/ledger/work.py").read_text()
    (written,) = re.findall(r"^LEDGER, BEGUN, ENDED = (.*)$", text, re.MULTILINE)
    assert re.findall(r'"([^"]+)"', written) == [system.LEDGER, system.BEGUN, system.ENDED]


@linux
@pytest.mark.parametrize(
    "end", ["assert False", *thorough("import os; os.kill(os.getpid(), 9)")], ids=["fails", "is killed"]
)
def test_runs_use_two_clusters_in_parallel_and_one_failure_fails_make(tmp_path: Path, end: str) -> None:
    for own, other in (("one", "two"), ("two", "one")):
        text = MEETING.format(folder=tmp_path, own=own, other=other, end=end if own == "one" else "pass")
        (tmp_path / f"test_{own}.py").write_text(text)
    files = (f"E2E_SCALING={tmp_path}/test_one.py", f"E2E_ORIGINAL={tmp_path}/test_two.py")
    done = subprocess.run(
        make("--jobs", "2", "--keep-going", "e2e-scaling", "e2e-original", *files, f"CLUSTER_STATE={tmp_path}/state"),
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.search(r"^e2e-original: =+ 2 passed", done.stdout, re.MULTILINE)
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {"e2e-scaling", "e2e-original"}
    assert [(tmp_path / own).read_text() for own in ("one", "two")] == [
        f"{tmp_path}/state",
        f"{tmp_path}/state-original",
    ]


@linux
def test_terminated_run_stops_its_cluster(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(WAITING.format(folder=tmp_path))
    with subprocess.Popen(make("e2e-scaling", f"E2E_SCALING={tmp_path}/test_one.py"), cwd=ROOT) as process:
        until((tmp_path / "started").exists, TIMEOUT_S, "the start of the test")
        (shell,) = [each for each in psutil.Process(process.pid).children() if each.name() == "bash"]
        shell.send_signal(signal.SIGTERM)
        until((tmp_path / "stopped").exists, TIMEOUT_S, "the end of the test")
    assert process.returncode != 0
