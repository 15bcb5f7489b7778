"""Fixtures that run the load test as `make load` does, also against servers with a known fault."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from loadtest.ledger import Follower, Ledger
from ops.servers.child import Child
from ops.servers.ports import free_ports, is_open
from tests.harness.system import ROOT, System
from tests.load.faulty import FAULTS

PYTHON = ROOT / ".local" / "load" / "bin" / "python"
SHAPES = Path(__file__).parent / "shapes.toml"
RUN_TIMEOUT_S = 120
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of `make load`. If it is missing: a skip on a laptop, a failure in CI."""
    if not PYTHON.exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(f"{PYTHON}: run these by `make test-load`")
        pytest.skip("Locust is not installed: run these tests with `make test-load`")
    return PYTHON


@pytest.fixture
def locust(python: Path, tmp_path: Path) -> Callable[..., Ledger]:
    """Run Locust alone against a port with one of the tests' shapes; returns its ledger."""

    def run(
        shape: str, port: int, *, start: Sequence[str] = ("-m", "locust"), file: str = "loadtest/locustfile.py"
    ) -> Ledger:
        path = tmp_path / "ledger"
        told = {"LOAD_SHAPES": str(SHAPES), "LOAD_SHAPE": shape, "LOAD_LEDGER": str(path), "LOAD_STARTED_S": "0"}
        options = ["--headless", "--host", f"http://127.0.0.1:{port}", "--stop-timeout", "5", "--loglevel", "ERROR"]
        done = subprocess.run(
            [python, *start, "--locustfile", file, *options], cwd=ROOT, env=os.environ | told,
            capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
        )  # fmt: skip
        ledger = Follower(path).read()
        assert (done.returncode, ledger.ended) == (0, True), done.stderr
        return ledger

    return run


@pytest.fixture
def loadtest(python: Path, tmp_path: Path) -> Run:
    """Run the load test with the tests' shapes; its report is in `report` in the test's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return subprocess.run(
            [python, "-m", "loadtest", *arguments, "--folder", str(tmp_path / "report")],
            cwd=ROOT, env={**kept, "LOAD_SHAPES": str(SHAPES), **environment}, capture_output=True, text=True,
            timeout=RUN_TIMEOUT_S, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def against(loadtest: Run, system: System, tmp_path: Path) -> Iterator[Run]:
    """Run the load test against a server with a fault, and with the empty queues of a real broker."""
    servers: list[Child] = []

    def run(fault: str) -> subprocess.CompletedProcess[str]:
        assert fault in FAULTS
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "tests.load.faulty", fault, str(port)]
        server = Child(fault, command, log=tmp_path / "server.log", env=os.environ, cwd=ROOT)
        servers.append(server)
        server.start()
        server.ready(lambda: is_open(port), 30)
        seen = {
            "CELERY_BROKER_URL": system.servers.rabbitmq.url(vhost=system.vhost),
            "RABBITMQ_MANAGEMENT_URL": system.servers.rabbitmq.management.url,
        }
        return loadtest("short", "--host", f"http://127.0.0.1:{port}", **seen)

    yield run
    for server in servers:
        server.stop()
