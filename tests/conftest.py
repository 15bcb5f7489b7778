"""Servers for a whole test process, and systems for a test or a module."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from ops.command import Unusable
from tests.harness.servers import Servers, running
from tests.harness.system import System

# The duration of an example depends on the machine. pytest's own timeout ends a test that hangs.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Tests connect only to this machine. Most HTTP libraries would send these requests to the proxy of the environment too.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1,::1"
os.environ.pop("ALL_PROXY", None)
os.environ.pop("all_proxy", None)

CONTROL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
# Each call starts an Erlang virtual machine: with twenty processes per core this has taken over two minutes.
CONTROL_TIMEOUT_S = 300
SystemFactory = Callable[..., System]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests with the marker `outage` first: while they wait, the other pytest processes run the other tests."""
    items.sort(key=lambda item: item.get_closest_marker("outage") is None)
    for item in items:
        if isinstance(item, pytest.Function) and "alarm" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(4 * CONTROL_TIMEOUT_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements of passed tests."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"measured: {name}: {value}")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """RabbitMQ and Redis of this test process. If they are missing, skip on a laptop and fail in CI."""
    with ExitStack() as ends:
        try:
            started = ends.enter_context(running(tmp_path_factory.mktemp("servers")))
        except Unusable as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(exc))
        yield started


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The event loops that async tests run on. The API runs on uvloop in production."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def system(servers: Servers, tmp_path: Path) -> Iterator[System]:
    """An empty system on its own virtual host; the test starts the processes it needs."""
    with System(servers, tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Like `system`, but shared by all tests of a module, which must not disturb each other."""
    with System(servers, tmp_path_factory.mktemp("system")) as started:
        yield started


@pytest.fixture
def alarm(system: System) -> Iterator[Callable[[str], None]]:
    """Sets the broker's memory limit, and restores it at the end."""
    if "SLUICE_TEST_RABBITMQ_ROOT" in os.environ:
        pytest.skip("rabbitmqctl of this broker is in another root file system")

    def limit(fraction: str) -> None:
        environment = system.servers.rabbitmq.node.env | {
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
        }
        command = [str(CONTROL), "set_vm_memory_high_watermark", fraction]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=CONTROL_TIMEOUT_S)

    yield limit
    limit("0.4")
