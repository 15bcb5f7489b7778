"""The message on the wire equals the message of Celery's own client."""

import json

import pytest
from celery import Celery

from apps.contract.message import (
    TaskMessage,
    obstacle_to_requeue,
    raw,
    raw_properties,
    republished,
    task_message,
    unreadable_because,
    unreadable_body_because,
)
from tests.harness.simple_tasks import TASKS, WORK_QUEUE

OURS = {"publish_id", "owner", "request_id"}


TEXT = """{"task": "first",\n\t"name": "\\"Łódź\\" 東京 \\ud83d\\ude00 \U0001f600 \u2028"}"""


@pytest.fixture
def message() -> TaskMessage:
    return task_message(TASKS["first"], TEXT, task_id="an-id", owner="o", request_id="r")


def test_message_equals_the_message_of_celerys_client(message: TaskMessage) -> None:
    theirs = Celery(set_as_current=False).amqp.as_task_v2(
        "an-id", message.task, [TEXT], {}, origin="sluice-api", argsrepr="(...)", kwargsrepr="{}"
    )
    assert json.loads(message.body) == json.loads(json.dumps(theirs.body))
    assert {name: value for name, value in message.headers.items() if name not in OURS} == theirs.headers
    assert theirs.properties == {"correlation_id": "an-id", "reply_to": ""}


def test_each_publish_has_its_own_id(message: TaskMessage) -> None:
    second = task_message(TASKS["first"], TEXT, task_id="an-id", owner="o", request_id="r")
    assert message.publish_id != second.publish_id
    assert message.headers["publish_id"] == message.publish_id


def test_input_is_not_in_the_headers(message: TaskMessage) -> None:
    assert "Łódź" not in str(message.headers)


def test_trace_context_is_in_the_headers() -> None:
    traced = task_message(TASKS["first"], TEXT, task_id="i", owner="o", request_id="r", traceparent="00-a-b-01")
    assert traced.headers["traceparent"] == "00-a-b-01"


def test_republished_message_is_reset_and_has_new_ids(message: TaskMessage) -> None:
    old = message.headers
    dead = old | {"retries": 3, "x-death": [{}], "x-delivery-count": 20, "reason": "expired", "failure": "{}"}
    dead |= {"eta": "never", "expires": "2020-01-01T00:00:00"}
    new = republished(dead, message.body, task_id="new-id", routing_key=WORK_QUEUE)
    changed = {name for name in new.headers if new.headers[name] != old.get(name)}
    assert changed == {"id", "root_id", "publish_id"}
    assert new.body == message.body


def test_accepted_message_can_be_requeued(message: TaskMessage) -> None:
    assert obstacle_to_requeue(message.headers) is None


@pytest.mark.parametrize("task", ["theirs:task", "task", ""])
def test_message_without_a_queue_cannot_be_requeued(message: TaskMessage, task: str) -> None:
    assert "none of the queues" in str(obstacle_to_requeue(message.headers | {"task": task}))


def test_accepted_message_is_readable(message: TaskMessage) -> None:
    for _ in range(2):  # the second call uses the cached types
        assert unreadable_because(message.headers) is None
    assert unreadable_body_because(message.body) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", None), ("owner", b"o"), ("retries", "0"), ("retries", True), ("eta", 7), ("form", "2"), ("returns", 0.5),
     ("x-death", "abc"), ("x-death", ["abc"]), ("x-death", [{}]), ("x-death", [{"queue": 1, "reason": "r"}]),
     ("CC", ["dead"]), ("shadow", "another")],
)  # fmt: skip
def test_header_of_a_wrong_type_is_unreadable(message: TaskMessage, name: str, value: object) -> None:
    assert unreadable_because(message.headers) is None
    assert name in str(unreadable_because(message.headers | {name: value}))


def test_headers_of_a_later_form_are_readable_if_id_and_owner_are(message: TaskMessage) -> None:
    assert unreadable_because(message.headers | {"form": 2, "eta": 7}) is None
    assert unreadable_because(message.headers | {"form": 2, "owner": 7}) is not None


@pytest.mark.parametrize("size", [0, 100, 127_000])
def test_raw_message_is_kept_unchanged(size: int) -> None:
    properties = bytes(range(256)) * (size // 256)
    kept = raw(properties, b"body", {"type": "malformed", "message": "m"})
    assert raw_properties(kept.headers, kept.body) == properties
    assert kept.body.endswith(b"body")


@pytest.mark.parametrize("headers", [{}, {"raw_properties": "?"}, {"raw_properties_bytes": 9}, {"raw_properties": 7}])
def test_message_with_invalid_raw_headers_is_treated_as_an_ordinary_one(headers: dict[str, object]) -> None:
    assert raw_properties(headers, b"body") is None
