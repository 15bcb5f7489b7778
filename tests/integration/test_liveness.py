"""The probes of worker and recorder: an outage of the broker restarts none, a process that hangs or gave up is found.

The probes are those of the manifests. A file's age is set back instead of waited for: what lives touches it again.
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
# py-amqp's time-out of a connection, and of each of the three frames that the broker then sends
ATTEMPT_S = 4 * 4
# longer than any wait of the processes in tests/harness/hanging_processes.py, where an attempt is refused at once
TOUCHED_S = 5.0


def start(system: System, kind: str, *, hung: bool = False) -> Child:
    if kind == "recorder":
        return system.recorder("tests.harness.hanging_processes" if hung else "apps.worker.recorder")
    return system.worker("tests.harness.hanging_processes" if hung else "tests.harness.worker", WORKER_POOL=kind)


def probe(child: Child, name: str) -> bool:
    """Whether a probe of the manifests passes, with this process's files for the pod's."""
    file = "recorder" if child.name == "recorder" else "deployment"
    document = yaml.safe_load((ROOT / f"kustomize/base/worker/{file}.yaml").read_text())
    container: dict[str, Any] = document["spec"]["template"]["spec"]["containers"][0]
    files = {"/tmp/alive": child.env["LIVENESS_FILE"], "/tmp/ready": child.env["READINESS_FILE"]}  # noqa: S108
    command: list[str] = container[name]["exec"]["command"]
    for there, here in files.items():
        command = [word.replace(there, here) for word in command]
    return subprocess.run(command, check=False, timeout=10).returncode == 0


def set_back(child: Child) -> None:
    """As after OLD_S without a touch. Done before the process touches it again it says nothing: ask for a while."""
    then_s = time.time() - OLD_S
    os.utime(child.env["LIVENESS_FILE"], (then_s, then_s))


def touches(child: Child, seconds: float) -> Iterator[float]:
    """When the liveness file was touched, from now on."""
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
    """It looks dead, and goes on to."""
    set_back(child)
    assert list(touches(child, TOUCHED_S)) == []
    assert not probe(child, "livenessProbe")


@pytest.mark.parametrize("kind", KINDS)
def test_process_that_consumes_is_alive(system: System, kind: str) -> None:
    child = start(system, kind)
    assert all(probe(child, name) for name in ("startupProbe", "livenessProbe", "readinessProbe"))
    set_back(child)
    until(lambda: probe(child, "livenessProbe"), TOUCHED_S)


@pytest.mark.parametrize("away", ["kill", *thorough("suspend")])
@pytest.mark.parametrize("kind", ["prefork", *thorough("threads", "recorder")])
def test_broker_that_is_away_restarts_no_process(system: System, kind: str, away: str) -> None:
    """For the longest wait between two attempts, and some: an hour is the same again and again."""
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


def test_attempts_of_the_recorder_are_near_enough() -> None:
    assert recorder.CONNECT_DEADLINE_S + recorder.CLOSE_DEADLINE_S + recorder.RETRY_S < OLD_S / 2


@pytest.mark.parametrize("kind", KINDS)
def test_process_that_is_stopped_is_found(system: System, kind: str) -> None:
    child = start(system, kind)
    child.suspend()
    assert_found(child)


@pytest.mark.parametrize("kind", KINDS)
def test_event_loop_that_hangs_is_found(system: System, kind: str) -> None:
    child = start(system, kind, hung=True)
    child.signal(HANG)
    until(lambda: list(touches(child, 2)) == [], 20)  # until the signal has come
    assert_found(child)


@pytest.mark.parametrize("kind", [*thorough("prefork", "threads"), "recorder"])
def test_process_that_tries_no_more_is_found(system: System, kind: str) -> None:
    """The broker comes back, and nothing happens: only a restart helps."""
    child = start(system, kind, hung=True)
    system.servers.rabbitmq.kill()
    until(lambda: not probe(child, "readinessProbe"), 40)
    assert len(list(islice(touches(child, ATTEMPT_S), 2))) == 2  # it tries
    child.signal(STOP_TRYING if kind == "recorder" else HANG)
    until(lambda: list(touches(child, 3)) == [], 30)
    system.servers.rabbitmq.start()
    assert_found(child)
    assert child.alive
    assert not probe(child, "readinessProbe")


def test_main_thread_that_ended_is_found_while_a_thread_of_the_pool_runs_on(system: System) -> None:
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
def test_files_of_a_killed_container_say_nothing_of_the_next_one(system: System, kind: str) -> None:
    """Both are in a volume that lives as long as the pod."""
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


def test_worker_that_drains_is_alive(system: System) -> None:
    """Its grace period is longer than the age of a file that counts as old."""
    api = system.api()
    child = system.worker(SOFT_SHUTDOWN_S="60")
    api.accepted("sleep", "drains", seconds=15)
    until(lambda: system.effects("drains", "begun") == 1)
    child.signal(signal.SIGTERM)
    until(lambda: not probe(child, "readinessProbe"), 10)
    set_back(child)
    until(lambda: probe(child, "livenessProbe"), TOUCHED_S)
