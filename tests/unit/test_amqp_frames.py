"""The frame reader turns any bytes into frames or a ProtocolError, and buffers at most one frame."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Connection
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from apps.amqp import frames
from apps.amqp.frames import FrameReader, ProtocolError

MESSAGES = (
    Basic.Ack(1, multiple=True),
    Basic.Nack(2, multiple=False),
    Basic.Return(312, "NO_ROUTE", "sluice", "nowhere"),
    ContentHeader(body_size=3, properties=Basic.Properties(headers={"a": [1, {"b": None}]}, message_id="m")),
    ContentBody(b"abc"),
    Heartbeat(),
    Connection.Blocked("memory"),
    Connection.Start(0, 9, {"capabilities": {"basic.nack": True}}, "PLAIN", "en_US"),
)
STREAM = b"".join(frame.marshal(one, 1) for one in MESSAGES)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.integers(min_value=0)))
def test_frames_do_not_depend_on_how_the_stream_is_split(places: list[int]) -> None:
    whole = FrameReader().feed(STREAM)
    reader = FrameReader()
    assert [one for part in cut(STREAM, places) for one in reader.feed(part)] == whole
    assert len(whole) == len(MESSAGES)


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(min_value=8, max_value=4096))
def test_any_bytes_give_frames_or_an_error_within_the_size_limit(parts: list[bytes], frame_max_bytes: int) -> None:
    reader = FrameReader()
    reader.frame_max_bytes = frame_max_bytes
    try:
        for part in parts:
            found = reader.feed(part)
            assert all(len(one.payload) + frames.OVERHEAD_BYTES <= frame_max_bytes for one in found)
            assert len(reader._buffer) < frame_max_bytes  # noqa: SLF001 - the test checks this bound
    except ProtocolError:
        pass


@given(st.data())
def test_damaged_stream_gives_frames_or_an_error(data: st.DataObject) -> None:
    damaged = bytearray(STREAM)
    for place in data.draw(st.lists(st.integers(0, len(STREAM) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        for one in FrameReader().feed(bytes(damaged)):
            _decode(one)
    except ProtocolError:
        pass


@given(st.sampled_from([frames.METHOD, frames.HEADER]), st.binary(max_size=2000))
def test_any_payload_is_decoded_or_a_protocol_error(kind: int, payload: bytes) -> None:
    with suppress(ProtocolError):
        _decode(frames.Frame(kind, 1, payload))


def test_nesting_beyond_the_recursion_limit_is_a_protocol_error() -> None:
    table = b""
    for _ in range(5000):
        entry = b"\x01aF" + table if table else b"\x01aV"
        table = len(entry).to_bytes(4, "big") + entry
    payload = Connection.Start.index.to_bytes(4, "big") + b"\0\x09" + table
    with pytest.raises(ProtocolError):
        frames.method_of(payload)


@pytest.mark.parametrize("excess", [0, 1])
def test_frame_larger_than_negotiated_is_refused(excess: int) -> None:
    reader = FrameReader()
    reader.frame_max_bytes = 4096
    data = frame.marshal(ContentBody(bytes(4096 - frames.OVERHEAD_BYTES + excess)), 1)
    if excess:
        with pytest.raises(ProtocolError, match="4089 bytes"):
            reader.feed(data[: frames.HEAD.size + 1])  # refused by its header, before the payload is buffered
    else:
        assert len(reader.feed(data)) == 1


@pytest.mark.parametrize("other", [b"HTTP/1.1 400 Bad Request\r\n", b"AMQP\x00\x01\x00\x00", b"\x01" * 12])
def test_bytes_of_another_protocol_are_a_protocol_error(other: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(other)


def _decode(one: frames.Frame) -> None:
    if one.kind == frames.METHOD:
        frames.method_of(one.payload)
    elif one.kind == frames.HEADER:
        frames.content_header_of(one.payload)
