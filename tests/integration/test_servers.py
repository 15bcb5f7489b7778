"""The servers of tests and of `make up`: data and ports survive a restart, and no process survives a stop."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.command import Unusable
from ops.management import Management
from ops.servers import inspection
from ops.servers.child import until
from ops.servers.ports import is_open
from ops.servers.redis import is_redis
from tests.harness.clone import left
from tests.harness.runaway_functions import STARTS, started
from tests.harness.servers import Servers, running
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import System

NEWER = "SLUICE_TEST_RABBITMQ_ROOT"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running(tmp_path_factory.mktemp("own")) as started:
        yield started


@pytest.mark.skipif(NEWER not in os.environ, reason="needs SLUICE_TEST_RABBITMQ_ROOT: run `make test-brokers`")
def test_newer_broker_has_the_version_of_the_chart(servers: Servers) -> None:
    assert servers.rabbitmq.version >= (4, 3)


def test_passwords_are_neither_in_readable_files_nor_in_command_lines(servers: Servers) -> None:
    files = (servers.rabbitmq.folder / "rabbitmq.conf", servers.redis.folder / "redis.conf")
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    told = " ".join(psutil.Process(servers.redis.node.pid).cmdline())
    assert not any(password in told for password in servers.redis.passwords.values())


@pytest.mark.thorough
def test_killed_rabbitmq_keeps_its_data_and_ports(own: Servers) -> None:
    rabbitmq = own.rabbitmq
    rabbitmq.management("/api/vhosts/kept", "PUT")
    url = rabbitmq.url()
    rabbitmq.kill()
    assert not is_open(rabbitmq.port)
    rabbitmq.start()
    assert rabbitmq.url() == url
    assert "kept" in [vhost["name"] for vhost in rabbitmq.management("/api/vhosts")]


@pytest.mark.thorough
def test_suspended_servers_do_not_answer_until_they_are_resumed(own: Servers) -> None:
    management = Management(own.rabbitmq.management.url, "admin", own.rabbitmq.password, deadline_s=1)
    own.rabbitmq.suspend()
    own.redis.suspend()
    assert not management.answers()
    assert not is_redis(own.redis.url() + "?socket_timeout=1")
    own.rabbitmq.resume()
    own.redis.resume()
    until(lambda: management.answers() and is_redis(own.redis.url()), 30, "both")


@pytest.mark.thorough
def test_data_created_with_other_credentials_is_reported(own: Servers) -> None:
    stranger = Management(own.rabbitmq.management.url, "admin", "another")
    with pytest.raises(Unusable, match="created with other credentials"):
        stranger.answers()


@pytest.mark.thorough
def test_stop_ends_all_server_processes(tmp_path: Path) -> None:
    with running(tmp_path) as servers:
        nodes = (servers.rabbitmq.epmd, servers.rabbitmq.node, servers.redis.node)
        parents = [psutil.Process(node.pid) for node in nodes]
        processes = parents + [child for parent in parents for child in parent.children(recursive=True)]
        assert "erl_child_setup" in {process.name() for process in processes}
    until(lambda: not left(processes), 10, "the end of every process")


def test_system_ends_all_processes_that_tasks_started(servers: Servers, tmp_path: Path) -> None:
    with System(servers, tmp_path) as system:
        api = system.api()
        worker = system.worker(WORKER_CONCURRENCY="2")
        for how in STARTS:
            assert api.ended(api.accepted("start", how, how=how, then="return"))["task_status"] == "SUCCESS"
        until(lambda: all(started(tmp_path, how) for how in STARTS), 20, "a process for each way to start one")
        pids = [pid for how in STARTS for pid in started(tmp_path, how)]
        assert len(pids) == len(STARTS)
        worker.kill()
        assert sum(map(psutil.pid_exists, pids)) > 3  # processes in sessions of their own survive the worker
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


QUEUE = "/api/queues/{vhost}/dead"
WORK = "/api/policies/{vhost}/sluice-work"


@pytest.mark.parametrize(
    ("path", "method", "body", "sentence"),
    [
        ("/api/exchanges/{vhost}/sluice", "DELETE", None, "lacks the exchange sluice"),
        (QUEUE, "DELETE", None, "lacks the queue dead"),
        ("/api/bindings/{vhost}/e/sluice/q/dead/dead", "DELETE", None, "dead is not bound to sluice by the key dead"),
        (WORK, "PUT", {"overflow": "reject-publish"}, f"{WORK_QUEUE} does not set delivery-limit"),
    ],
)
def test_check_of_the_broker_names_the_difference(
    system: System, path: str, method: str, body: dict[str, str] | None, sentence: str
) -> None:
    rabbitmq = system.servers.rabbitmq
    inspection.check(rabbitmq.url(vhost=system.vhost), rabbitmq.management.url)
    policy = {"pattern": f"^({WORK_QUEUE}|celery)$", "apply-to": "queues", "definition": body} if body else None
    rabbitmq.management(path.format(vhost=system.vhost), method, policy)
    with pytest.raises(Unusable, match=sentence):
        inspection.check(rabbitmq.url(vhost=system.vhost), rabbitmq.management.url)


def test_check_of_the_broker_names_a_classic_queue(system: System) -> None:
    rabbitmq = system.servers.rabbitmq
    rabbitmq.management(QUEUE.format(vhost=system.vhost), "DELETE")
    rabbitmq.management(QUEUE.format(vhost=system.vhost), "PUT", {"durable": True})
    with pytest.raises(Unusable, match="the queue dead is of type classic, not quorum"):
        inspection.check(rabbitmq.url(vhost=system.vhost), rabbitmq.management.url)


def test_check_of_the_broker_asks_for_the_management_url_to_read_policies(system: System) -> None:
    rabbitmq = system.servers.rabbitmq
    url = rabbitmq.url("worker", system.passwords["worker"], system.vhost)
    with pytest.raises(Unusable, match="set RABBITMQ_MANAGEMENT_URL"):
        inspection.check(url, rabbitmq.management.url)
