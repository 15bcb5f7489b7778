"""Reading takes no long step of the event loop (CPU time), for any input of a broker."""

import asyncio
import gc
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic, Channel
from pamqp.commands import Connection as Peer
from pamqp.header import ContentHeader

from apps.amqp import frames
from apps.amqp.connection import Connection
from tests.harness.measured_loop_api import STEP_MAX_S

# The number of bytes that asyncio and uvloop read at once.
READ_BYTES = 256 * 1024


class Transport:
    """Records whether reading is paused, and discards written data."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    abort = close


class Measured(Connection):
    """Measures the CPU time of each reading step."""

    longest_s = 0.0

    def _read(self, data: bytes) -> None:
        started_s = time.thread_time()
        super()._read(data)
        self.longest_s = max(self.longest_s, time.thread_time() - started_s)


def of(kind: int, payload: bytes) -> bytes:
    channel = frames.CHANNEL if kind == frames.HEADER else 0
    return frames.HEAD.pack(kind, channel, len(payload)) + payload + frames.END


def start(properties: bytes) -> bytes:
    """Return a Connection.Start with this table, up to the maximum size of a frame."""
    table = struct.pack(">I", len(properties)) + properties
    method = struct.pack(">IBB", Peer.Start.index, 0, 9) + table + struct.pack(">I5sI5s", 5, b"PLAIN", 5, b"en_US")
    return of(frames.METHOD, method)


def nested(levels: int) -> bytes:
    table = b""
    for _ in range(levels):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return table


def array(items: bytes) -> bytes:
    return b"\x01aA" + struct.pack(">I", len(items)) + items


RETURN = frame.marshal(Basic.Return(312, "N", "s", "n"), frames.CHANNEL)
HEADER = frame.marshal(ContentHeader(body_size=0, properties=Basic.Properties(message_id="255")), frames.CHANNEL)
STREAMS = {
    "heartbeats": frames.HEARTBEAT_FRAME * 40_000,
    "acks": b"".join(frame.marshal(Basic.Ack(tag, multiple=False), frames.CHANNEL) for tag in range(1, 257)) * 50,
    "acks of none": frame.marshal(Basic.Ack(300, multiple=True), frames.CHANNEL) * 12_000,
    "blocked": frame.marshal(Peer.Blocked("memory"), 0) * 12_000,
    "blocked and not": (frame.marshal(Peer.Blocked("m"), 0) + frame.marshal(Peer.Unblocked(), 0)) * 6_000,
    "returns": (RETURN + HEADER) * 3_500,
    "closes": frame.marshal(Channel.Close(404, "gone", 0, 0), frames.CHANNEL) * 6_000,
    "empty bodies": of(frames.BODY, b"") * 30_000,
    "table of voids": start(b"\x01aV" * 43_000),
    "array of voids": start(array(b"V" * 120_000)),
    "array of arrays": start(array(b"A\x00\x00\x00\x00" * 24_000)),
    "short array of voids": start(array(b"V" * 3_900)),
    "nested tables": start(nested(18_000)),
    "few nested tables": start(nested(560)),
    "header of voids": RETURN
    + of(frames.HEADER, struct.pack(">HHQHI", 60, 0, 0, 0x2000, 120_000) + b"\x01aV" * 40_000),
    "zeros": bytes(READ_BYTES),
    "large bodies": of(frames.BODY, bytes(131_000)) * 3,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """Exclude imported objects from garbage collection, as the API does."""
    gc.freeze()
    yield
    gc.unfreeze()


async def longest_step_s(stream: bytes) -> float:
    connection = Measured(10, lambda: None)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    for tag in range(256):
        connection.confirms.sent(str(tag), connection.loop.create_future(), 1e9)
    for at in range(0, len(stream), READ_BYTES):
        connection.data_received(stream[at : at + READ_BYTES])
        for _ in range(2 + READ_BYTES // frames.OVERHEAD_BYTES // frames.FRAMES_MAX):  # the reading steps
            await asyncio.sleep(0)
        assert transport.reading or connection.ended.done()
    return connection.longest_s


@pytest.mark.parametrize("name", STREAMS)
def test_step_is_bounded_for_each_stream(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
    assert asyncio.run(longest_step_s(STREAMS[name])) < STEP_MAX_S


PARTS = st.tuples(st.sampled_from([*STREAMS.values()]), st.integers(0, 4000)).map(lambda part: part[0][: part[1]])


@given(st.lists(PARTS, max_size=5))
def test_step_is_bounded_for_mixed_streams(parts: list[bytes]) -> None:
    assert asyncio.run(longest_step_s(b"".join(parts))) < STEP_MAX_S


def test_reading_resumes_after_all_frames_were_read() -> None:
    async def read() -> tuple[int, bool]:
        connection, transport = Connection(10, lambda: None), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        count = 5 * frames.FRAMES_MAX // 2
        for tag in range(count):
            connection.confirms.sent(str(tag), connection.loop.create_future(), 1e9)
        acks = [frame.marshal(Basic.Ack(tag, multiple=False), frames.CHANNEL) for tag in range(1, count + 1)]
        connection.data_received(b"".join(acks))
        assert not transport.reading
        for _ in range(5):
            await asyncio.sleep(0)
        return len(connection.confirms), transport.reading

    assert asyncio.run(read()) == (0, True)
