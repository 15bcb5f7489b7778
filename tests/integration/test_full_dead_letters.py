"""With `dead` and `dead.parked` full, every task still gets its FAILURE, and dropped messages are logged."""

import json
import re
from typing import Any

import httpx
import pytest

from ops.servers.ports import free_ports
from tests.harness import raw_messages
from tests.harness.raw_messages import TASK, headers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import System, until
from tests.integration.test_dead_letters import command

PARKED = 2_500


def waits_too_long(system: System, **bounds: float) -> None:
    """Set bounds, and let every task expire in its queue, as there is no worker."""
    system.define(message_ttl_s=1, **bounds)


def test_full_parking_queue_loses_no_failure_and_drops_are_logged_and_counted(system: System) -> None:
    (port,) = free_ports(1)
    waits_too_long(system, parked_max_messages=2)
    api = system.api()
    system.recorder(METRICS_PORT=str(port))
    ids = [api.accepted("sleep", f"n-{number}") for number in range(5)]
    assert {api.ended(task_id)["task_result"]["type"] for task_id in ids} == {"MessageExpired"}
    until(lambda: _parked(system) | _said(system) == set(ids))
    parked, said = _parked(system), _said(system)
    assert not parked & said
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert re.findall(r"^sluice_not_parked_total (\S+)$", text, re.MULTILINE) == [f"{len(said)}.0"]
    for task_id in parked:  # RabbitMQ accepts messages again once a fifth of the bound is free
        command(system, "discard", task_id)
    until(lambda: api.ended(api.accepted("sleep", "room")) and _parked(system))


def _parked(system: System) -> set[str]:
    return {json.loads(line)["id"] for line in command(system, "list").splitlines()}


def _said(system: System) -> set[str]:
    return {line["task_id"] for line in system.log_lines() if line["message"] == "not parked: dead.parked is full"}


@pytest.mark.thorough
def test_expired_tasks_stay_in_the_work_queue_while_the_dead_letter_queue_is_full(system: System) -> None:
    waits_too_long(system, dead_max_messages=2)
    api = system.api()
    ids = [api.accepted("sleep", f"n-{number}") for number in range(6)]
    until(lambda: system.depth_messages("dead") >= 2)
    system.recorder()
    assert {api.ended(task_id)["task_status"] for task_id in ids} == {"FAILURE"}
    until(lambda: system.depth_messages("dead.parked") == len(ids))


def test_worker_continues_while_the_dead_letter_queue_is_full(system: System) -> None:
    system.define(dead_max_messages=1)
    api = system.api()
    system.worker()
    url = system.servers.rabbitmq.url(vhost=system.vhost)
    raw_messages.publish(url, [(WORK_QUEUE, headers(TASK), b"%d" % number) for number in range(4)])
    # Unreadable messages wait in the worker and occupy no pool process: a readable one runs as soon as it is delivered.
    until(lambda: system.depth_messages("dead") >= 1)
    system.recorder()
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages("dead.parked") == 4)


@pytest.mark.thorough
def test_thousands_of_parked_messages_are_listed_in_order_and_kept(system: System) -> None:
    url = system.servers.rabbitmq.url(vhost=system.vhost)
    expected = [f"n-{number:05d}" for number in range(PARKED)]
    ids = (raw_messages.text(task_id.encode()) for task_id in expected)
    messages = [("dead.parked", headers(TASK | {b"id": task_id}), b"") for task_id in ids]
    assert all(raw_messages.publish(url, messages))
    for _ in range(3):
        assert [line["id"] for line in listed(system)] == expected
    command(system, "discard", "n-01700")
    until(lambda: system.depth_messages("dead.parked") == PARKED - 1)
    expected.remove("n-01700")
    assert [line["id"] for line in listed(system)] == expected


def listed(system: System) -> list[dict[str, Any]]:
    until(lambda: _nothing_is_taken(system))
    return [json.loads(line) for line in command(system, "list").splitlines()]


def _nothing_is_taken(system: System) -> bool:
    place = f"/api/queues/{system.vhost}/dead.parked"
    return bool(system.servers.rabbitmq.management(place).get("messages_unacknowledged") == 0)
