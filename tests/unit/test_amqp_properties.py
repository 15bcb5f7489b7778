"""Message properties on the wire: `decode` accepts any bytes, and never raises."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.common import FieldTable

from apps.amqp.properties import DEPTH_MAX, Unread, decode
from tests.harness import raw_messages

NOW = datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)
TABLE: FieldTable = {
    "text": "é",
    "number": -7,
    "large": 2**40,
    "yes": True,
    "none": None,
    "when": NOW,
    "many": [1, {"a": "b"}],
    "part": Decimal("1.25"),
}


def test_properties_written_by_pamqp_are_decoded() -> None:
    written = Basic.Properties(headers=TABLE, content_type="a", message_id="m", timestamp=NOW)
    found = decode(written.marshal())
    assert found["headers"] == TABLE
    assert (found["content_type"], found["message_id"], found["timestamp"]) == ("a", "m", NOW)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded(data: bytes) -> None:
    decode(data)
    decode(b"\xff\xfe" + data)
    decode(b"\x20\x00" + raw_messages.sized(data))


@pytest.mark.parametrize("kind", raw_messages.PROPERTIES)
def test_properties_of_the_integration_tests_are_decoded(kind: str) -> None:
    decode(raw_messages.PROPERTIES[kind])


def test_too_deeply_nested_tables_stay_bytes() -> None:
    value = decode(raw_messages.PROPERTIES["deep"])["headers"]["any"]
    for _ in range(DEPTH_MAX):
        assert len(value) == 1
        value = value[0]
    assert isinstance(value, Unread)
