"""The message on the wire equals what Celery's own client would send."""

import json

import pytest
from celery import Celery

from apps.contract.message import TaskMessage, obstacle_to_requeue, republished, task_message
from apps.contract.tasks import TASKS

OURS = {"publish_id", "owner", "request_id"}


TEXT = """{"task": "task_1",\n\t"name": "\\"Łódź\\" 東京 \\ud83d\\ude00 \U0001f600 \u2028"}"""


@pytest.fixture
def message() -> TaskMessage:
    return task_message(TASKS["task_1"], TEXT, task_id="an-id", owner="o", request_id="r")


def test_message_equals_celerys(message: TaskMessage) -> None:
    theirs = Celery(set_as_current=False).amqp.as_task_v2(
        "an-id", message.task, [TEXT], {}, origin="sluice-api", argsrepr="(...)", kwargsrepr="{}"
    )
    assert json.loads(message.body) == json.loads(json.dumps(theirs.body))
    assert {name: value for name, value in message.headers.items() if name not in OURS} == theirs.headers
    assert theirs.properties == {"correlation_id": "an-id", "reply_to": ""}


def test_each_publish_has_an_id_of_its_own(message: TaskMessage) -> None:
    second = task_message(TASKS["task_1"], TEXT, task_id="an-id", owner="o", request_id="r")
    assert message.publish_id != second.publish_id
    assert message.headers["publish_id"] == message.publish_id


def test_input_stays_out_of_the_headers(message: TaskMessage) -> None:
    assert "Łódź" not in str(message.headers)


def test_trace_of_the_request_goes_along() -> None:
    traced = task_message(TASKS["task_1"], TEXT, task_id="i", owner="o", request_id="r", traceparent="00-a-b-01")
    assert traced.headers["traceparent"] == "00-a-b-01"


def test_republished_work_starts_anew_under_its_new_id(message: TaskMessage) -> None:
    old = message.headers
    dead = old | {"retries": 3, "x-death": [{}], "x-delivery-count": 20, "reason": "expired", "failure": "{}"}
    dead |= {"eta": "never", "expires": "2020-01-01T00:00:00"}
    new = republished(dead, message.body, task_id="new-id", routing_key="Test_Query")
    changed = {name for name in new.headers if new.headers[name] != old.get(name)}
    assert changed == {"id", "root_id", "publish_id"}
    assert new.body == message.body


def test_accepted_message_can_be_sent_again(message: TaskMessage) -> None:
    assert obstacle_to_requeue(message.headers, message.body) is None


@pytest.mark.parametrize(
    ("changed", "body", "said"),
    [
        ({"owner": None}, None, "no owner"),
        ({"task": "theirs:task"}, None, "none of the queues"),
        ({"task": None}, None, "none of the queues"),
        ({}, b"", "no worker could read it"),
        ({}, b"7", "no worker could read it"),
        ({}, b"[]", "no worker could read it"),
        ({}, b"[[], {}, {}]", "no worker could read it"),
        ({}, b"[" * 100_000, "no worker could read it"),
        ({}, b"\xff\xfe", "no worker could read it"),
    ],
)
def test_message_that_cannot_be_sent_again_says_why(
    message: TaskMessage, changed: dict[str, object], body: bytes | None, said: str
) -> None:
    assert said in str(obstacle_to_requeue(message.headers | changed, message.body if body is None else body))
