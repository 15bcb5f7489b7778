"""What cannot be run ends as a FAILURE that says why, is parked for people, and can be sent again."""

import json
import subprocess
import sys

import pytest
from kombu import Connection, Exchange, Producer

from apps.contract import topology
from tests.harness.system import ROOT, Api, System, until


def command(system: System, *arguments: str, status: int = 0) -> str:
    """Run the command that `make dead-letters` and `make requeue` run."""
    done = subprocess.run(
        [sys.executable, "-m", "apps.worker.dead_letters", *arguments],
        env=system.environment("worker"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def poisoned(system: System, name: str) -> tuple[Api, str]:
    """A system with one parked task, which would succeed the next time."""
    system.define(delivery_limit=1)
    api = system.api()
    system.recorder()
    system.worker()
    task_id = api.accepted("kill_child", name, times=2)
    assert api.ended(task_id)["task_status"] == "FAILURE"
    until(lambda: system.depth_messages("dead.parked") == 1)
    return api, task_id


def test_parked_task_is_listed_and_sent_again(system: System) -> None:
    api, task_id = poisoned(system, "again")
    (line,) = command(system, "list").splitlines()
    assert json.loads(line)["id"] == task_id
    assert json.loads(line)["reason"] == "delivery_limit"
    new_id = command(system, "requeue", task_id).strip()
    assert new_id != task_id
    assert api.ended(new_id)["task_status"] == "SUCCESS"
    old = api.status(task_id)
    assert (old["task_status"], old["task_result"]["requeued_as"]) == ("FAILURE", new_id)
    until(lambda: system.depth_messages("dead.parked") == 0)


def test_requeue_of_what_is_not_parked_says_so(system: System) -> None:
    assert "has the id nothing" in command(system, "requeue", "nothing", status=1)


@pytest.mark.thorough
def test_looking_often_drops_nothing(system: System) -> None:
    """Each look is a delivery: RabbitMQ 4 drops after 20 of them unless the policy says otherwise."""
    poisoned(system, "looked-at")
    for _ in range(25):
        _look(system)
    assert len(command(system, "list").splitlines()) == 1


def _look(system: System) -> None:
    place = f"/api/queues/{system.vhost}/dead.parked/get"
    got = {"count": 10, "ackmode": "reject_requeue_true", "encoding": "auto"}
    until(lambda: system.servers.rabbitmq.management(place, "POST", got))


@pytest.mark.thorough
def test_dead_letter_that_cannot_be_parked_yet_is_parked_later(system: System) -> None:
    place = f"/api/bindings/{system.vhost}/e/sluice/q/dead.parked"
    system.define(message_ttl_s=1)
    system.servers.rabbitmq.management(f"{place}/dead.parked", "DELETE")
    api = system.api()
    recorder = system.recorder()
    ids = [api.accepted("sleep") for _ in range(20)]  # more than it takes at once
    until(lambda: "dead letter not recorded" in system.logs())
    system.define()
    assert {api.ended(task_id)["task_status"] for task_id in ids} == {"FAILURE"}
    until(lambda: system.depth_messages("dead.parked") >= len(ids))
    until(lambda: system.depth_messages("dead") == 0)
    assert recorder.alive


def test_task_that_waits_too_long_is_a_failure_that_says_so(system: System) -> None:
    system.define(message_ttl_s=1)
    api = system.api()
    system.recorder()
    ended = api.ended(api.accepted("sleep"))
    assert ended["task_status"] == "FAILURE"
    assert "waited in its queue" in ended["task_result"]["message"]


def test_task_that_no_worker_knows_is_a_failure(system: System) -> None:
    api = system.api()
    system.recorder()
    system.worker("apps.worker.app")  # the project's own worker, without the tests' tasks
    ended = api.ended(api.accepted("sleep"))
    assert ended["task_status"] == "FAILURE"
    assert api.ended(api.accepted("task_2"))["task_status"] == "SUCCESS"


HEADERS = {"task": "Test_Query:task_2", "publish_id": "p"}


@pytest.mark.parametrize(
    ("body", "headers", "parked"),
    [
        (b"not json", HEADERS | {"id": "garbage-1"}, 1),
        (b"[1]", HEADERS | {"id": "garbage-2"}, 1),
        (b"[[{}], {}, {}]", HEADERS | {"id": "garbage-3", "eta": "never"}, 1),
        (b"{}", {}, 1),
        (b"[[], {}, {}]", HEADERS | {"id": "garbage-4"}, 0),  # can be run, and fails
    ],
)
def test_garbage_in_the_queue_hurts_nobody(
    shared: System, garbled: Api, body: bytes, headers: dict[str, str], parked: int
) -> None:
    until(lambda: shared.depth_messages("dead") == 0)
    before = _count_parked(shared)
    _publish(shared, body, headers)
    assert garbled.ended(garbled.accepted("task_2"))["task_status"] == "SUCCESS"
    until(lambda: _count_parked(shared) == before + parked)


def _count_parked(system: System) -> int:
    return len(command(system, "list").splitlines())


@pytest.fixture(scope="module")
def garbled(shared: System) -> Api:
    api = shared.api()
    shared.worker()
    shared.recorder()
    return api


def _publish(system: System, body: bytes, headers: dict[str, str]) -> None:
    url = system.servers.rabbitmq.url("api", system.passwords["api"], system.vhost)
    with Connection(url) as connection:
        exchange = Exchange(topology.EXCHANGE, type="topic", no_declare=True)
        producer = Producer(connection, exchange, routing_key="Test_Query", auto_declare=False)
        producer.publish(body, headers=headers, content_type="application/json", content_encoding="utf-8")
