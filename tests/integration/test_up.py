"""`make up` as a user sees it: it works, it explains errors in one sentence, and it leaves no process behind."""

import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ops.servers.ports import free_ports
from tests.harness.clone import Clone, left
from tests.harness.servers import Servers
from tests.harness.system import System, until
from tests.harness.thorough import thorough

MakeClone = Callable[..., Clone]


@pytest.fixture
def make_clone(tmp_path: Path) -> Iterator[MakeClone]:
    clones: list[Clone] = []

    def make(**environment: str) -> Clone:
        folder = tmp_path / f"clone {len(clones)}"  # a space: the test finds unquoted paths
        clones.append(Clone(folder, environment.pop("port", str(free_ports(1)[0])), **environment))
        return clones[-1]

    yield make
    for clone in clones:
        clone.end()


def of_broker(system: System, **changed: str) -> dict[str, str]:
    """Return the environment of a `make up` whose servers are given by URLs."""
    rabbitmq = system.servers.rabbitmq
    management = rabbitmq.management.url.replace("//", f"//admin:{rabbitmq.password}@")
    return {
        "CELERY_BROKER_URL": rabbitmq.url("admin", rabbitmq.password, system.vhost),
        "CELERY_RESULT_BACKEND": system.servers.redis.url(),
        "RABBITMQ_MANAGEMENT_URL": management,
    } | changed


def test_up_runs_tasks_and_leaves_no_process(make_clone: MakeClone) -> None:
    # an unreachable proxy, which no connection to this machine may use
    nobody = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    clone = make_clone(**nobody)
    supervisor = clone.up()
    clone.says("Post a task")
    assert '-d \'{"task": "nap", "name": "abc"}\'' in clone.printed
    assert len(re.findall(r"(nap|rest)  SUCCESS", clone.printed)) == 2
    assert clone.run("ops.demo").stdout.count("SUCCESS") == 2
    post = [sys.executable, "-m", "apps.client", "post", "nap", "--name", "abc", "--wait"]
    assert '"task_status": "SUCCESS"' in clone.run("ops.run", "--", *post).stdout
    processes = supervisor.children(recursive=True)
    assert {"epmd", "beam.smp", "redis-server"} <= {process.name() for process in processes}
    supervisor.send_signal(signal.SIGINT)
    assert clone.exit_status() == 0
    until(lambda: not left(processes), 10, "the end of every process")


@pytest.mark.thorough
def test_kill_of_the_supervisor_leaves_no_process(make_clone: MakeClone) -> None:
    clone = make_clone(NAP_S="60")
    supervisor = clone.up()
    clone.says("STARTED")  # the worker's child runs a task
    processes = supervisor.children(recursive=True)
    supervisor.kill()
    until(lambda: not left(processes), 10, "the end of every process")
    assert "No system runs here" in clone.run("ops.demo").stderr


@pytest.mark.thorough
def test_end_of_a_server_stops_the_whole_system(make_clone: MakeClone) -> None:
    clone = make_clone()
    supervisor = clone.up()
    clone.says("are ready")
    processes = supervisor.children(recursive=True)
    next(process for process in processes if process.name() == "redis-server").kill()
    assert clone.exit_status() == 1
    assert "Redis ended, so everything is stopped" in clone.printed
    until(lambda: not left(processes), 10, "the end of every process")


@pytest.mark.thorough
def test_up_uses_given_servers_and_restarts_a_dead_api(make_clone: MakeClone, system: System) -> None:
    clone = make_clone(**of_broker(system))
    supervisor = clone.up()
    clone.says("Post a task")
    assert clone.printed.count("SUCCESS") == 2
    api = next(process for process in supervisor.children() if "uvicorn" in process.cmdline())
    api.kill()
    clone.says("api ended; it is restarted in 1 s")
    until(lambda: clone.run("ops.demo").returncode == 0, 60, "an answer of the new API")


@pytest.mark.thorough
def test_second_up_in_one_folder_is_refused(make_clone: MakeClone, system: System) -> None:
    clone = make_clone(**of_broker(system))
    clone.up()
    clone.says("are ready")
    second = clone.run("ops.up")
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("`make up` or `make load` is already running in this folder")


def test_up_with_an_occupied_port_is_refused(make_clone: MakeClone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = make_clone(port=str(port)).run("ops.up")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Port {port} is in use")


@pytest.mark.parametrize("port", ["eighty", *thorough("99999")])
def test_up_with_an_invalid_port_is_refused(make_clone: MakeClone, port: str) -> None:
    refused = make_clone(port=port).run("ops.up")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"API_PORT is {port!r}: set it to a number from 1024 to 65535.\n",
    )


def test_up_refuses_a_broker_that_does_not_match_the_contract(make_clone: MakeClone, system: System) -> None:
    system.servers.rabbitmq.management(f"/api/queues/{system.vhost}/dead", "DELETE")
    refused = make_clone(**of_broker(system)).run("ops.up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("The broker in CELERY_BROKER_URL lacks the queue dead:")


@pytest.mark.parametrize(
    ("name", "url", "form"),
    [
        ("CELERY_BROKER_URL", "amqp://user:long-and-secret@host:port/", "amqp"),
        *thorough(("CELERY_BROKER_URL", "http://x:1/", "amqp"), ("CELERY_RESULT_BACKEND", "cache:6379", "redis")),
    ],
)
def test_up_with_an_invalid_url_is_refused(make_clone: MakeClone, name: str, url: str, form: str) -> None:
    refused = make_clone(**{name: url}).run("ops.up")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{name}: it must read {form}://user:password@host:port/")
    assert len(refused.stderr.splitlines()) == 1


def test_up_refuses_a_redis_that_does_not_answer(make_clone: MakeClone, system: System) -> None:
    nowhere = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    refused = make_clone(**of_broker(system, CELERY_RESULT_BACKEND=nowhere)).run("ops.up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("The Redis in CELERY_RESULT_BACKEND does not answer")


def test_servers_listen_on_loopback_only(servers: Servers) -> None:
    nodes = (servers.rabbitmq.epmd, servers.rabbitmq.node, servers.redis.node)
    sockets = [socket for node in nodes for socket in psutil.Process(node.pid).net_connections()]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::1"}
    assert "127.0.0.1" in listening
