"""The probes of worker and recorder: a broker outage restarts no process, a hung or idle process is restarted.

The probes are those of the manifests. Tests set the age of a file back instead of waiting: a live process touches it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.health import OLD_S
from apps.worker import recorder
from apps.worker.connection_attempts import RETRY_MAX_S
from ops.servers.child import Child
from tests.harness.hanging_processes import FAIL, HANG, STOP_TRYING
from tests.harness.system import ROOT, System, until
from tests.harness.thorough import thorough

KINDS = ("prefork", *thorough("threads"), "recorder")
# py-amqp's timeout of 4 s, for the connection and for each of the three frames that the broker then sends
ATTEMPT_S = 4 * 4
# longer than any interval of the processes in tests/harness/hanging_processes.py, whose attempts are refused at once
TOUCHED_S = 5.0


def start(system: System, kind: str, *, hung: bool = False) -> Child:
    if kind == "recorder":
        return system.recorder("tests.harness.hanging_processes" if hung else "apps.worker.recorder")
    return system.worker("tests.harness.hanging_processes" if hung else "tests.harness.worker", WORKER_POOL=kind)


def probe(child: Child, name: str) -> bool:
    """Run a probe of the manifests with the files of this process instead of the pod's; returns whether it passes."""
    file = "recorder" if child.name == "recorder" else "deployment"
    document = yaml.safe_load((ROOT / f"kustomize/base/worker/{file}.yaml").read_text())
    container: dict[str, Any] = document["spec"]["template"]["spec"]["containers"][0]
    files = {"/tmp/alive": child.env["LIVENESS_FILE"], "/tmp/ready": child.env["READINESS_FILE"]}  # noqa: S108
    command: list[str] = container[name]["exec"]["command"]
    for there, here in files.items():
        command = [word.replace(there, here) for word in command]
    return subprocess.run(command, check=False, timeout=10).returncode == 0


def set_back(child: Child) -> None:
    """Make the file look untouched for OLD_S. A live process touches it again: poll before you judge."""
    then_s = time.time() - OLD_S
    os.utime(child.env["LIVENESS_FILE"], (then_s, then_s))


def touches(child: Child, seconds: float) -> Iterator[float]:
    """Yield the time of each touch of the liveness file during this time."""
    file, end_s = Path(child.env["LIVENESS_FILE"]), time.monotonic() + seconds
    last_s = time.time()
    while time.monotonic() < end_s:
        if (touched_s := file.stat().st_mtime) > last_s:
            last_s = touched_s
            yield touched_s
        time.sleep(0.05)


def longest_gap_s(child: Child, seconds: float) -> float:
    times = [time.time(), *touches(child, seconds), time.time()]
    return max(after - before for before, after in pairwise(times))


def assert_found(child: Child) -> None:
    """Assert that the liveness probe fails and that the process touches its file no more."""
    set_back(child)
    assert list(touches(child, TOUCHED_S)) == []
    assert not probe(child, "livenessProbe")


@pytest.mark.parametrize("kind", KINDS)
def test_probes_of_a_consuming_process_pass(system: System, kind: str) -> None:
    child = start(system, kind)
    assert all(probe(child, name) for name in ("startupProbe", "livenessProbe", "readinessProbe"))
    set_back(child)
    until(lambda: probe(child, "livenessProbe"), TOUCHED_S)


@pytest.mark.parametrize("away", ["kill", *thorough("suspend")])
@pytest.mark.parametrize("kind", ["prefork", *thorough("threads", "recorder")])
def test_liveness_passes_during_a_broker_outage(system: System, kind: str, away: str) -> None:
    """The outage exceeds the longest interval between two attempts to connect; a longer one only repeats it."""
    child = start(system, kind)
    getattr(system.servers.rabbitmq, away)()
    until(lambda: not probe(child, "readinessProbe"), 40)
    gap_s = longest_gap_s(child, 2 * RETRY_MAX_S + 15)
    assert 0 < gap_s < RETRY_MAX_S + ATTEMPT_S < OLD_S
    assert probe(child, "livenessProbe")
    system.servers.rabbitmq.resume()
    system.servers.restore()
    until(lambda: probe(child, "readinessProbe"), 40)
    assert child.alive


def test_recorder_touches_its_file_often_enough_while_it_reconnects() -> None:
    assert recorder.CONNECT_DEADLINE_S + recorder.CLOSE_DEADLINE_S + recorder.RETRY_S < OLD_S / 2


@pytest.mark.parametrize("kind", KINDS)
def test_liveness_fails_for_a_suspended_process(system: System, kind: str) -> None:
    child = start(system, kind)
    child.suspend()
    assert_found(child)


@pytest.mark.parametrize("kind", KINDS)
def test_liveness_fails_for_a_hanging_event_loop(system: System, kind: str) -> None:
    child = start(system, kind, hung=True)
    child.signal(HANG)
    until(lambda: list(touches(child, 2)) == [], 20)  # waits until the signal takes effect
    assert_found(child)


@pytest.mark.parametrize("kind", [*thorough("prefork", "threads"), "recorder"])
def test_liveness_fails_for_a_process_that_no_longer_reconnects(system: System, kind: str) -> None:
    """The broker is back, but the process does not connect: only a restart helps."""
    child = start(system, kind, hung=True)
    system.servers.rabbitmq.kill()
    until(lambda: not probe(child, "readinessProbe"), 40)
    assert len(list(islice(touches(child, ATTEMPT_S), 2))) == 2  # it still tries
    child.signal(STOP_TRYING if kind == "recorder" else HANG)
    until(lambda: list(touches(child, 3)) == [], 30)
    system.servers.rabbitmq.start()
    assert_found(child)
    assert child.alive
    assert not probe(child, "readinessProbe")


def test_liveness_fails_if_the_main_thread_ended_and_a_pool_thread_still_runs(system: System) -> None:
    api = system.api()
    child = start(system, "threads", hung=True)
    api.accepted("stuck", "runs on")
    until(lambda: system.effects("runs on", "begun") == 1)
    child.signal(FAIL)
    until(lambda: "told to fail" in child.log.read_text(), 20)
    until(lambda: list(touches(child, 2)) == [], 20)
    assert_found(child)
    assert child.alive


@pytest.mark.parametrize("kind", ["prefork", *thorough("recorder")])
def test_probe_files_of_a_killed_container_do_not_affect_its_successor(system: System, kind: str) -> None:
    """Both containers use the same volume, which lives as long as the pod."""
    child = start(system, kind)
    system.servers.rabbitmq.kill()
    child.kill()
    Path(child.env["READINESS_FILE"]).touch()
    set_back(child)
    assert not probe(child, "startupProbe")
    child.start()
    until(lambda: probe(child, "startupProbe"), 40)
    assert not probe(child, "readinessProbe")
    assert child.alive


def test_liveness_passes_while_a_worker_drains(system: System) -> None:
    """The grace period is longer than the age at which the file counts as old."""
    api = system.api()
    child = system.worker(SOFT_SHUTDOWN_S="60")
    api.accepted("sleep", "drains", seconds=15)
    until(lambda: system.effects("drains", "begun") == 1)
    child.signal(signal.SIGTERM)
    until(lambda: not probe(child, "readinessProbe"), 10)
    set_back(child)
    until(lambda: probe(child, "livenessProbe"), TOUCHED_S)
