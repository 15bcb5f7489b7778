"""Two versions at once: a worker returns unknown messages to the other version, in either order of the update."""

import json
import re
from typing import Any

import httpx
import pytest
from kombu import Connection, Exchange, Producer

from apps.contract import topology
from apps.contract.ids import TaskIds
from ops.servers.ports import free_ports
from tests.harness.next_version import QUEUE
from tests.harness.records import Records
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS, thorough
from tests.integration.test_dead_letters import command

OLDER, NEXT = "tests.harness.worker", "tests.harness.next_version_worker"
# Longer than the start of a worker of the other version.
PATIENT: dict[str, Any] = {"RETURN_MAX_S": "300"}


def declare_queue(system: System) -> None:
    """Declare the next version's queue as its definitions would."""
    manage, vhost = system.servers.rabbitmq.management, system.vhost
    manage(f"/api/queues/{vhost}/{QUEUE}", "PUT", {"durable": True, "arguments": topology.QUEUE_ARGUMENTS})
    manage(f"/api/bindings/{vhost}/e/{topology.EXCHANGE}/q/{QUEUE}", "POST", {"routing_key": QUEUE})
    place = f"/api/permissions/{vhost}/worker"
    manage(place, "PUT", _grown(manage(place)))
    for user in ("api", "worker", "tool"):
        place = f"/api/topic-permissions/{vhost}/{user}"
        (allowed,) = manage(place)
        manage(place, "PUT", {"exchange": allowed["exchange"], **_grown(allowed)})


def _grown(allowed: dict[str, str]) -> dict[str, str]:
    """Return a user's rights extended by the new queue."""
    rights = {name: allowed[name] for name in ("configure", "write", "read") if name in allowed}
    return {name: right.replace(WORK_QUEUE, f"{WORK_QUEUE}|{QUEUE}") for name, right in rights.items()}


def returned(system: System, task_id: str) -> list[dict[str, Any]]:
    """Return the log lines of workers that returned this task."""
    return [line for line in system.log_lines() if line["message"] == "returned" and line["task_id"] == task_id]


def assert_waits_for_both(system: System, api: Api, ids: dict[str, str]) -> None:
    """Assert that each task is returned more than once, and that it has not ended."""
    until(lambda: all(len(returned(system, task_id)) > 1 for task_id in ids.values()), what=f"{ids} returned")
    for task_id in ids.values():
        assert {line["what"] for line in returned(system, task_id)} <= {"task", "input", "form"}
        assert api.status(task_id)["task_status"] in {"PENDING", "STARTED"}


@POOLS
def test_tasks_of_a_newer_api_wait_for_a_newer_worker(system: System, pool: str) -> None:
    system.define(delivery_limit=1)  # a return does not count as a delivery
    declare_queue(system)
    api = system.api("tests.harness.next_version_api")
    system.recorder()
    system.worker(OLDER, WORKER_POOL=pool, **PATIENT)
    ids = {"field": api.accepted("sleep", colour="blue"), "task": api.accepted("later")}
    ids["type"] = api.accepted("count", digits="three")
    elsewhere = api.accepted("resize")
    same = api.accepted("second")
    assert api.ended(same)["task_status"] == "SUCCESS"
    assert_waits_for_both(system, api, ids)
    system.worker(NEXT, WORKER_POOL=pool, **PATIENT)
    states = {
        what: api.ended(task_id)["task_result"]["state"] for what, task_id in (ids | {"queue": elsewhere}).items()
    }
    assert states == {"field": "blue", "task": "done", "type": "three", "queue": "done"}
    assert system.depth_messages("dead.parked") == 0


@POOLS
def test_tasks_of_an_older_api_wait_for_an_older_worker(system: System, pool: str) -> None:
    declare_queue(system)
    api = system.api()
    system.recorder()
    system.worker(NEXT, WORKER_POOL=pool, **PATIENT)
    ids = {"type": api.accepted("count", digits=3), "task": api.accepted("elsewhere")}
    assert api.ended(api.accepted("sleep"))["task_status"] == "SUCCESS"
    assert_waits_for_both(system, api, ids)
    system.worker(OLDER, WORKER_POOL=pool, **PATIENT)
    ended = {what: api.ended(task_id)["task_status"] for what, task_id in ids.items()}
    assert ended == {"type": "SUCCESS", "task": "SUCCESS"}
    assert system.depth_messages("dead.parked") == 0


@POOLS
def test_task_that_no_worker_knows_in_time_is_a_failure_with_its_reason(system: System, pool: str) -> None:
    (port,) = free_ports(1)
    api = system.api("tests.harness.next_version_api")
    system.recorder()
    system.worker(OLDER, WORKER_POOL=pool, METRICS_PORT=str(port), RETURN_MAX_S="2")
    ids = {"input": api.accepted("sleep", colour="blue"), "task": api.accepted("later")}
    for what, said in (("input", "refuses the input"), ("task", f"has no task '{WORK_QUEUE}:later'")):
        result = api.ended(ids[what])["task_result"]
        assert result["type"] == "NotUnderstood"
        assert re.search(rf"within 2 s of its first return \(\d returns\).*{said}", result["message"], re.DOTALL)
        assert len(returned(system, ids[what])) >= 1
        assert _metric(port, f'sluice_returned_total{{what="{what}"}}') >= 1
    lines = until(lambda: command(system, "list").splitlines() if system.depth_messages("dead.parked") > 1 else [])
    assert {json.loads(line)["reason"] for line in lines} == {"NotUnderstood"}
    assert not any("requeue" in json.loads(line) for line in lines)


def _metric(port: int, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])


@pytest.mark.parametrize(("task", "more"), [("later", {}), *thorough(("sleep", {"colour": "blue"}))])
def test_task_that_waits_for_another_version_can_be_cancelled(system: System, task: str, more: dict[str, Any]) -> None:
    api = system.api("tests.harness.next_version_api")
    system.recorder()
    system.worker(OLDER, **PATIENT)
    task_id = api.accepted(task, **more)
    until(lambda: returned(system, task_id))
    assert api.client.delete(f"/tasks/{task_id}").status_code in {200, 202}
    assert api.ended(task_id)["task_status"] == "REVOKED"


def test_message_of_a_later_form_is_returned_unless_its_id_is_invalid(system: System) -> None:
    system.recorder()
    system.worker(RETURN_MAX_S="2")
    later = TaskIds(system.task_id_key.encode()).new("tests")
    headers = {
        "id": later,
        "task": f"{WORK_QUEUE}:second",
        "publish_id": "p",
        "owner": "tests",
        "retries": 0,
        "form": 2,
    }
    _publish(system, b"\x81\xa1a", headers)
    _publish(system, b"\x81\xa1a", headers | {"id": 7})
    records = Records(system.redis)
    until(lambda: records.read(later).state == "FAILURE")
    assert "its form is of another version" in records.read(later).meta
    assert returned(system, later)
    until(lambda: system.depth_messages("dead.parked") == 2)
    assert {json.loads(line)["reason"] for line in command(system, "list").splitlines()} == {
        "NotUnderstood",
        "malformed",
    }


def _publish(system: System, body: bytes, headers: dict[str, Any]) -> None:
    with Connection(system.servers.rabbitmq.url(vhost=system.vhost)) as connection:
        exchange = Exchange(topology.EXCHANGE, type="topic", no_declare=True)
        producer = Producer(connection, exchange, routing_key=WORK_QUEUE, auto_declare=False)
        producer.publish(body, headers=headers, content_type="application/x-msgpack", content_encoding="binary")
