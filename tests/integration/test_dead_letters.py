"""Tasks that cannot run end as a FAILURE with the reason, are parked, and can be requeued."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from kombu import Connection, Exchange, Producer

from apps.contract import topology
from apps.contract.ids import TaskIds
from tests.harness.servers import Servers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOL_PARAMETERS, POOLS, thorough


def command(system: System, *arguments: str, status: int = 0) -> str:
    """Run the command behind `make dead-letters` and `make requeue`."""
    done = system.run("apps.worker.dead_letters", *arguments, user="tool")
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def poisoned(system: System, name: str) -> tuple[Api, str]:
    """Prepare a system with one parked task, which would succeed after a requeue."""
    system.define(delivery_limit=1)
    api = system.api()
    system.recorder()
    system.worker()
    task_id = api.accepted("kill_child", name, times=2)
    assert api.ended(task_id)["task_status"] == "FAILURE"
    until(lambda: system.depth_messages("dead.parked") == 1)
    return api, task_id


def test_parked_task_is_listed_and_requeued(system: System) -> None:
    api, task_id = poisoned(system, "again")
    (line,) = command(system, "list").splitlines()
    assert json.loads(line)["id"] == task_id
    assert json.loads(line)["reason"] == "DeliveryLimitExceeded"
    new_id = command(system, "requeue", task_id).strip()
    assert new_id != task_id
    assert api.ended(new_id)["task_status"] == "SUCCESS"
    old = api.status(task_id)
    assert (old["task_status"], old["task_result"]["requeued_as"]) == ("FAILURE", new_id)
    until(lambda: system.depth_messages("dead.parked") == 0)


def test_requeue_of_an_unknown_id_prints_an_error(system: System) -> None:
    assert "has the id nothing" in command(system, "requeue", "nothing", status=1)


@pytest.mark.thorough
def test_reading_the_parked_messages_25_times_drops_none(system: System) -> None:
    """Each read is a delivery: RabbitMQ 4 drops a message after 20 deliveries unless the policy says otherwise."""
    poisoned(system, "looked-at")
    for _ in range(25):
        _look(system)
    assert len(until(lambda: command(system, "list").splitlines())) == 1  # the last read must return it first


def _look(system: System) -> None:
    place = f"/api/queues/{system.vhost}/dead.parked/get"
    got = {"count": 10, "ackmode": "reject_requeue_true", "encoding": "auto"}
    until(lambda: system.servers.rabbitmq.management(place, "POST", got))


@pytest.mark.thorough
def test_dead_letter_that_cannot_be_parked_now_is_parked_later(system: System) -> None:
    place = f"/api/bindings/{system.vhost}/e/sluice/q/dead.parked"
    system.define(message_ttl_s=1)
    system.servers.rabbitmq.management(f"{place}/dead.parked", "DELETE")
    api = system.api()
    recorder = system.recorder()
    ids = [api.accepted("sleep") for _ in range(20)]  # more than the recorder's prefetch count
    until(lambda: "dead letter not parked yet" in system.logs())
    system.define()
    assert {api.ended(task_id)["task_status"] for task_id in ids} == {"FAILURE"}
    until(lambda: system.depth_messages("dead.parked") >= len(ids))
    until(lambda: system.depth_messages("dead") == 0)
    assert recorder.alive


@POOLS
def test_task_unknown_to_the_worker_is_a_failure_of_type_not_understood(system: System, pool: str) -> None:
    api = system.api()
    system.recorder()
    system.worker("tests.harness.simple_tasks_app", WORKER_POOL=pool)  # it knows only two tasks
    task_id = api.accepted("sleep")
    result = api.ended(task_id)["task_result"]
    assert result["type"] == "NotUnderstood"
    assert f"the worker has no task '{WORK_QUEUE}:sleep'" in result["message"]
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"
    (line,) = until(lambda: command(system, "list").splitlines())
    assert json.loads(line)["reason"] == "NotUnderstood"
    assert json.loads(line)["died"]
    system.worker()  # knows the task; both workers consume
    assert api.ended(command(system, "requeue", task_id).strip())["task_status"] == "SUCCESS"


HEADERS: dict[str, Any] = {"task": f"{WORK_QUEUE}:second", "publish_id": "p", "owner": "tests", "retries": 0}
INPUT = b'[[{"task": "second", "name": "abc"}], {}, {}]'
PAST = "2020-01-01T00:00:00+00:00"
MESSAGES: dict[str, tuple[bytes, dict[str, Any], str, str, str | None]] = {
    "not-json": (b"not json", {}, "malformed", "DecodeError", "cannot be read"),
    "not-a-list": (b"7", {}, "malformed", "TypeError", "cannot be read"),
    "too-short": (b"[1]", {}, "malformed", "", "cannot be read"),
    "no-input": (b"[[], {}, {}]", {}, "malformed", "one input", "cannot be read"),
    "keywords": (b'[[{}], {"a": 1}, {}]', {}, "malformed", "one input", "cannot be read"),
    "bad-eta": (INPUT, {"eta": "never"}, "malformed", "invalid ETA value 'never'", "cannot be read"),
    "bad-expiry": (INPUT, {"expires": "never"}, "malformed", "invalid expires value 'never'", "cannot be read"),
    "expired": (INPUT, {"expires": PAST}, "MessageExpired", "`expires`", None),
    "of-celery": (INPUT, {"publish_id": None, "owner": None}, "malformed", "publish_id is missing", "cannot be read"),
    "celery-map": (INPUT, {"task": "celery.map"}, "NotUnderstood", "'celery.map'", "is in none of the queues"),
    "unknown": (INPUT, {"task": f"{WORK_QUEUE}:gone"}, "NotUnderstood", f"'{WORK_QUEUE}:gone'", None),
    "wrong-name": (INPUT, {"task": "gone"}, "NotUnderstood", "'gone'", "is in none of the queues"),
    "odd-name": (INPUT, {"task": 7}, "malformed", "task is of the type int", "cannot be read"),
}
"""Body, headers, type of the failure, part of its message, and the reason if it cannot be requeued."""


@pytest.fixture(scope="module", params=POOL_PARAMETERS)
def mixed(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[System, Api]]:
    with System(servers, tmp_path_factory.mktemp("system")) as system:
        api = system.api()
        system.worker(WORKER_POOL=request.param)
        system.recorder()
        yield system, api


@pytest.mark.parametrize("kind", MESSAGES)
def test_message_that_cannot_run_is_a_failure_with_its_reason(mixed: tuple[System, Api], kind: str) -> None:
    system, api = mixed
    body, headers, type_, message, obstacle = MESSAGES[kind]
    task_id = TaskIds(system.task_id_key.encode()).new("tests")
    all_headers = HEADERS | {"id": task_id} | headers
    _publish(system, body, {name: value for name, value in all_headers.items() if value is not None})
    ended = api.ended(task_id)
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", type_)
    assert message in ended["task_result"]["message"]
    (line,) = until(lambda: _listed(system, task_id))
    assert line["reason"] == type_
    if obstacle:
        assert obstacle in line["requeue"]
        assert obstacle in command(system, "requeue", task_id, status=1)
    else:
        again = api.ended(command(system, "requeue", task_id).strip())["task_result"]
        assert again.get("type", "SUCCESS") == (type_ if kind == "unknown" else "SUCCESS")


def test_requeue_refused_by_the_broker_prints_an_error_and_keeps_the_task_parked(system: System) -> None:
    api, task_id = poisoned(system, "unroutable")
    place = f"/api/bindings/{system.vhost}/e/sluice/q/{WORK_QUEUE}"
    for binding in system.servers.rabbitmq.management(place):  # there are two: Celery created the second one
        system.servers.rabbitmq.management(f"{place}/{quote(binding['properties_key'], safe='')}", "DELETE")
    assert "still parked" in command(system, "requeue", task_id, status=1)
    system.define(delivery_limit=1)
    assert api.ended(command(system, "requeue", task_id).strip())["task_status"] == "SUCCESS"


def test_message_rejected_by_another_consumer_is_a_failure_without_a_reason(system: System) -> None:
    """A worker of an older version rejects messages in this way."""
    api = system.api()
    system.recorder()
    task_id = api.accepted("sleep")
    place = f"/api/queues/{system.vhost}/{WORK_QUEUE}/get"
    got = {"count": 1, "ackmode": "reject_requeue_false", "encoding": "auto"}
    until(lambda: system.servers.rabbitmq.management(place, "POST", got))
    ended = api.ended(task_id)["task_result"]
    assert ended["type"] == "Rejected"
    assert "without a reason" in ended["message"]


@pytest.mark.parametrize("dies", ["publish", *thorough("ack")])
def test_no_message_is_lost_if_a_worker_dies_while_it_rejects_it(system: System, dies: str) -> None:
    api = system.api()
    system.recorder()
    worker = system.worker("tests.harness.faulty_publisher_worker", TROUBLE=dies)
    task_id = api.accepted("stuck", "stuck")
    until(lambda: not worker.alive)
    system.worker()
    assert api.ended(task_id)["task_result"]["type"] == "HardTimeLimitExceeded"
    until(lambda: system.depth_messages(WORK_QUEUE) == system.depth_messages("dead") == 0)
    assert len(until(lambda: command(system, "list").splitlines())) == 1
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"


def test_worker_continues_if_it_cannot_publish_the_reason_of_a_rejection(system: System) -> None:
    """Without a route to the dead letters, the worker continues, and the broker keeps the rejected message."""
    api = system.api()
    system.recorder()
    worker = system.worker()
    place = f"/api/bindings/{system.vhost}/e/sluice/q/dead/dead"
    system.servers.rabbitmq.management(place, "DELETE")
    task_id = api.accepted("stuck", "stuck")
    until(lambda: "rejected without a reason" in system.logs())
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    assert api.status(task_id)["task_status"] == "STARTED"
    system.define()
    assert api.ended(task_id)["task_result"]["type"] == "Rejected"
    assert worker.alive


@pytest.mark.thorough
def test_worker_continues_while_the_broker_blocks_publishers(system: System, alarm: Callable[[str], None]) -> None:
    """During an alarm, the broker blocks connections that publish; acks on the same connection would be blocked too."""
    api = system.api()
    system.recorder()
    worker = system.worker()
    task_id, next_ = api.accepted("stuck", "stuck"), api.accepted("sleep", "next")
    until(lambda: system.effects("stuck", "begun") == 1)
    alarm("0.00001")
    assert api.ended(next_)["task_status"] == "SUCCESS"
    assert api.ended(task_id)["task_result"]["type"] in {"Rejected", "HardTimeLimitExceeded"}  # if it blocked late
    alarm("0.4")
    # Two if the broker also accepts the copy for whose confirm the worker waited in vain.
    until(lambda: system.depth_messages("dead.parked") in {1, 2})
    until(lambda: system.depth_messages(WORK_QUEUE) == system.depth_messages("dead") == 0)
    assert worker.alive


def test_worker_rejects_its_message_before_it_stops(system: System) -> None:
    api = system.api()
    worker = system.worker("tests.harness.faulty_publisher_worker", TROUBLE="late", SOFT_SHUTDOWN_S="50")
    task_id = api.accepted("stuck", "stuck")
    until(lambda: system.effects("stuck", "begun") == 1)
    worker.signal(signal.SIGTERM)
    until(lambda: not worker.alive)
    until(lambda: system.depth_messages(WORK_QUEUE) == 0, 10)
    system.recorder()
    assert api.ended(task_id)["task_result"]["type"] == "HardTimeLimitExceeded"


def _listed(system: System, task_id: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in command(system, "list").splitlines()]
    return [line for line in lines if line["id"] == task_id]


@pytest.mark.parametrize(
    ("body", "headers", "parked"),
    [
        (b"not json", HEADERS | {"id": "garbage-1"}, 1),
        (b"{}", {}, 1),
        (b"not json", {}, 1),
        (b"not json", {"task": f"{WORK_QUEUE}:second"}, 1),
        (b"[[], {}, {}]", HEADERS | {"id": "garbage-4"}, 1),
        (b"[[{}], {}, {}]", HEADERS | {"id": "garbage-5"}, 1),  # an input of no model, parked after RETURN_MAX_S
    ],
)
def test_unreadable_messages_are_parked_and_other_tasks_run(
    shared: System, garbled: Api, body: bytes, headers: dict[str, str], parked: int
) -> None:
    until(lambda: shared.depth_messages("dead") == 0)
    before = _count_parked(shared)
    _publish(shared, body, headers)
    assert garbled.ended(garbled.accepted("second"))["task_status"] == "SUCCESS"
    until(lambda: _count_parked(shared) == before + parked)


def _count_parked(system: System) -> int:
    return len(command(system, "list").splitlines())


@pytest.fixture(scope="module")
def garbled(shared: System) -> Api:
    api = shared.api()
    shared.worker()
    shared.recorder()
    return api


def _publish(system: System, body: bytes, headers: dict[str, Any]) -> None:
    url = system.servers.rabbitmq.url("api", system.passwords["api"], system.vhost)
    with Connection(url) as connection:
        exchange = Exchange(topology.EXCHANGE, type="topic", no_declare=True)
        producer = Producer(connection, exchange, routing_key=WORK_QUEUE, auto_declare=False)
        producer.publish(body, headers=headers, content_type="application/json", content_encoding="utf-8")
