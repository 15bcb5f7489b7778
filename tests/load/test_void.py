"""Locust's own warning, that it had too little processor, reaches the ledger; what it means is the gates' business."""

import os
import subprocess
from pathlib import Path

import pytest

from loadtest.ledger import Follower
from local.servers import free_ports
from tests.harness.system import ROOT
from tests.load.conftest import SHAPES

TIMEOUT_S = 60


@pytest.mark.parametrize(("locustfile", "warned"), [("tests/load/warned.py", True), ("loadtest/locustfile.py", False)])
def test_warning_is_in_the_ledger(python: Path, tmp_path: Path, locustfile: str, warned: bool) -> None:
    (port,) = free_ports(1)  # nobody listens: each post fails, and Locust has little to do
    told = {
        "LOAD_SHAPES": str(SHAPES), "LOAD_SHAPE": "short",
        "LOAD_LEDGER": str(tmp_path / "ledger"), "LOAD_STARTED_S": "0",
    }  # fmt: skip
    options = ["--headless", "--host", f"http://127.0.0.1:{port}", "--stop-timeout", "1", "--loglevel", "ERROR"]
    done = subprocess.run(
        [python, "-m", "locust", "--locustfile", locustfile, *options], cwd=ROOT, env=os.environ | told,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    ledger = Follower(tmp_path / "ledger").read()
    assert (done.returncode, ledger.ended) == (0, True), done.stderr
    assert ledger.short_of_cpu is warned
    assert any("ConnectionRefusedError" in what for what in ledger.failures)
