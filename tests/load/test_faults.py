"""A run against a server with a fault fails, and names the gate that did not hold."""

import json
import re
from pathlib import Path

import pytest

from tests.harness.system import System
from tests.load.conftest import Run


def failed(printed: str) -> set[str]:
    """Return the names of the gates that did not hold."""
    lines = (line.strip() for line in printed.splitlines())
    return {line.removeprefix("FAILED").partition(":")[0].strip() for line in lines if line.startswith("FAILED")}


def test_run_without_a_fault_passes(against: Run, tmp_path: Path) -> None:
    done = against("none")
    assert (failed(done.stdout), done.returncode) == (set(), 0), done.stdout + done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["verdict"] == "held"
    assert max(report["series"]["finished_per_s"]) > 5


def test_intended_refusals_within_a_batch_are_not_failures(against: Run) -> None:
    done = against("refuses")
    assert not failed(done.stdout) & {"nothing lost", "ledger and /metrics agree"}, done.stdout + done.stderr
    refused = re.search(r"held +no failures: 0 of \d+ requests, (\d+) intended refusals", done.stdout)
    assert refused, done.stdout
    assert int(refused[1]) > 0


@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        ("loses", "nothing lost"),
        ("fails", "no failures"),
        ("mixes", "every result right"),
        ("hesitates", "accepting, p95"),
        ("dawdles", "result after its task's time, p95"),
        ("miscounts", "ledger and /metrics agree"),
        ("doubles", "no failures"),
    ],
)
def test_fault_fails_its_gate(against: Run, fault: str, gate: str) -> None:
    done = against(fault)
    assert gate in failed(done.stdout), done.stdout + done.stderr
    assert done.returncode == 1


def test_remaining_message_fails_the_gate_of_drained_queues(against: Run, system: System) -> None:
    message = {
        "properties": {"delivery_mode": 2},
        "routing_key": "celery",
        "payload": "{}",
        "payload_encoding": "string",
    }
    system.servers.rabbitmq.management(f"/api/exchanges/{system.vhost}/sluice/publish", "POST", message)
    done = against("none")
    assert "queues drained: celery: 1" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
