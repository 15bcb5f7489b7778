"""The template encodes a message like pamqp, and like Celery's own client."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from apps.amqp.template import Template
from apps.contract import topology
from apps.contract.message import TaskMessage
from tests.harness.simple_tasks import WORK_QUEUE

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SHORT = st.text(max_size=60)  # an AMQP short string has at most 255 bytes


def unmarshalled(data: bytes) -> list[Any]:
    found = []
    while data:
        used, channel, one = frame.unmarshal(data)
        assert channel == 1
        found.append(one)
        data = data[used:]
    return found


@given(
    task_id=SHORT,
    publish_id=SHORT,
    owner=st.text(max_size=300),
    request_id=st.text(max_size=300),
    traceparent=st.none() | st.just(TRACEPARENT),
    body=st.binary(min_size=1, max_size=20_000),
)
def test_template_equals_pamqps_encoding(**varying: Any) -> None:
    message = TaskMessage(task=f"{WORK_QUEUE}:first", routing_key=WORK_QUEUE, **varying)
    publish, header, *bodies = unmarshalled(Template(message.task, message.routing_key).frames(message, 4096))
    assert isinstance(publish, Basic.Publish)
    assert isinstance(header, ContentHeader)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (topology.EXCHANGE, WORK_QUEUE, True)
    assert dict(header.properties) | {"reply_to": None} == dict(  # Celery sends an empty one, which pamqp cannot encode
        Basic.Properties(
            content_type="application/json",
            content_encoding="utf-8",
            headers=message.headers,
            delivery_mode=2,
            priority=0,
            correlation_id=message.task_id,
            message_id=message.publish_id,
        )
    )
    assert header.body_size == len(message.body)
    assert all(isinstance(one, ContentBody) and len(one.value) + 8 <= 4096 for one in bodies)
    assert b"".join(one.value for one in bodies) == message.body


@pytest.mark.parametrize("name", ["<id>", "<owner>", "\x05<id>", "S"])
def test_values_equal_to_the_templates_placeholders_are_kept(name: str) -> None:
    message = TaskMessage(name, name, name, name, name, name, name, b"x")
    _, header, _ = unmarshalled(Template(name, name).frames(message, 4096))
    assert header.properties.headers == message.headers
