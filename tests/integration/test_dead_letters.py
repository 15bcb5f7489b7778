"""What cannot be run ends as a FAILURE that says why, is parked for people, and can be sent again."""

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
    """Run the command that `make dead-letters` and `make requeue` run."""
    done = system.run("apps.worker.dead_letters", *arguments, user="tool")
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
    assert json.loads(line)["reason"] == "DeliveryLimitExceeded"
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
    assert len(until(lambda: command(system, "list").splitlines())) == 1  # the last look has to give it back


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
    until(lambda: "dead letter not parked yet" in system.logs())
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
    assert ended["task_result"]["type"] == "MessageExpired"
    assert "waited in its queue" in ended["task_result"]["message"]


@POOLS
def test_task_that_no_worker_knows_is_a_failure_that_says_so(system: System, pool: str) -> None:
    api = system.api()
    system.recorder()
    system.worker("tests.harness.simple_tasks_app", WORKER_POOL=pool)  # which has two tasks alone
    task_id = api.accepted("sleep")
    result = api.ended(task_id)["task_result"]
    assert result["type"] == "NotUnderstood"
    assert f"the worker has no task '{WORK_QUEUE}:sleep'" in result["message"]
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"
    (line,) = until(lambda: command(system, "list").splitlines())
    assert json.loads(line)["reason"] == "NotUnderstood"
    assert json.loads(line)["died"]
    system.worker()  # it knows the task; both consume
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
"""Body, headers, the failure's type, a part of its message, and why it cannot be sent again, if so."""


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
def test_message_that_cannot_be_run_says_why_and_whether_it_can_be_sent_again(
    mixed: tuple[System, Api], kind: str
) -> None:
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


def test_requeue_that_the_broker_refuses_says_so_and_leaves_the_task_parked(system: System) -> None:
    api, task_id = poisoned(system, "unroutable")
    place = f"/api/bindings/{system.vhost}/e/sluice/q/{WORK_QUEUE}"
    for binding in system.servers.rabbitmq.management(place):  # Celery has made a second one
        system.servers.rabbitmq.management(f"{place}/{quote(binding['properties_key'], safe='')}", "DELETE")
    assert "still parked" in command(system, "requeue", task_id, status=1)
    system.define(delivery_limit=1)
    assert api.ended(command(system, "requeue", task_id).strip())["task_status"] == "SUCCESS"


def test_message_that_another_consumer_rejects_is_a_failure_that_says_no_more(system: System) -> None:
    """As a worker of an older version rejects it."""
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
def test_worker_that_dies_while_it_gives_a_task_up_loses_nothing(system: System, dies: str) -> None:
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


def test_reason_that_cannot_be_published_holds_nobody_up(system: System) -> None:
    """The broker has no route to the dead letters: the worker goes on, and the broker keeps the rejected message."""
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
def test_broker_that_takes_no_messages_holds_nobody_up(system: System, alarm: Callable[[str], None]) -> None:
    """It blocks a connection that publishes, and would block the worker's acks on it."""
    api = system.api()
    system.recorder()
    worker = system.worker()
    task_id, next_ = api.accepted("stuck", "stuck"), api.accepted("sleep", "next")
    until(lambda: system.effects("stuck", "begun") == 1)
    alarm("0.00001")
    assert api.ended(next_)["task_status"] == "SUCCESS"
    assert api.ended(task_id)["task_result"]["type"] in {"Rejected", "HardTimeLimitExceeded"}  # if it was slow to block
    alarm("0.4")
    # two where the broker still takes the copy whose confirm was waited for in vain
    until(lambda: system.depth_messages("dead.parked") in {1, 2})
    until(lambda: system.depth_messages(WORK_QUEUE) == system.depth_messages("dead") == 0)
    assert worker.alive


def test_worker_that_is_told_to_stop_gives_up_what_it_has_first(system: System) -> None:
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
        (b"[[{}], {}, {}]", HEADERS | {"id": "garbage-5"}, 1),  # an input that no model takes, after RETURN_MAX_S
    ],
)
def test_garbage_in_the_queue_hurts_nobody(
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
