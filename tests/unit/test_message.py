"""The message on the wire equals what Celery's own client would send."""

import json

import pytest
from celery import Celery

from apps.contract.message import republished, task_message
from apps.contract.tasks import TASKS, Task1

OURS = {"publish_id", "owner", "request_id"}


@pytest.fixture
def payload() -> Task1:
    return Task1(task="task_1", name='"Łódź" 東京 \U0001f600')


def test_message_equals_celerys(payload: Task1) -> None:
    spec = TASKS["task_1"]
    ours = task_message(spec, payload, task_id="an-id", owner="o", request_id="r")
    theirs = Celery(set_as_current=False).amqp.as_task_v2(
        "an-id", spec.name, [payload.model_dump()], {}, origin="sluice-api", argsrepr="(...)", kwargsrepr="{}"
    )
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert {name: value for name, value in ours.headers.items() if name not in OURS} == theirs.headers
    assert theirs.properties == {"correlation_id": "an-id", "reply_to": ""}


def test_each_publish_has_an_id_of_its_own(payload: Task1) -> None:
    first, second = (
        task_message(TASKS["task_1"], payload, task_id="an-id", owner="o", request_id="r") for _ in range(2)
    )
    assert first.headers["publish_id"] != second.headers["publish_id"]


def test_input_stays_out_of_the_headers(payload: Task1) -> None:
    message = task_message(TASKS["task_1"], payload, task_id="an-id", owner="o", request_id="r")
    assert payload.name not in str(message.headers)


def test_republished_work_starts_anew_under_its_new_id(payload: Task1) -> None:
    old = task_message(TASKS["task_1"], payload, task_id="an-id", owner="o", request_id="r")
    dead = old.headers | {"retries": 3, "x-death": [{}], "x-delivery-count": 20, "reason": "expired"}
    new = republished(dead, old.body, task_id="new-id", routing_key="Test_Query")
    changed = {name for name in new.headers if new.headers[name] != old.headers.get(name)}
    assert changed == {"id", "root_id", "publish_id"}
    assert new.body == old.body
