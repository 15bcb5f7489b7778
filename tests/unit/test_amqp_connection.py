"""A connection that receives arbitrary frames ends or continues, and each publish gets an outcome."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Exchange
from pamqp.commands import Connection as Peer
from pamqp.header import ContentHeader

from apps.amqp.confirms import CONFIRMED, LOST, Future
from apps.amqp.connection import Connection
from apps.contract.message import TaskMessage

pytestmark = pytest.mark.anyio

SENT = 4
HARMLESS = [
    frame.marshal(Peer.Blocked("memory"), 0),
    frame.marshal(Peer.Unblocked(), 0),
    b"\x08\x00\x00\x00\x00\x00\x00\xce",
]
OTHERS = [
    frame.marshal(Basic.Nack(2), 1),
    frame.marshal(Basic.Return(312, "", "", ""), 1),
    frame.marshal(ContentHeader(body_size=2, properties=Basic.Properties(message_id="publish-1")), 1),
    frame.marshal(ContentBody(b"xx"), 1),
    frame.marshal(Exchange.DeclareOk(), 1),
    frame.marshal(Channel.Close(404, "", 0, 0), 1),
    frame.marshal(Peer.Close(320, "", 0, 0), 0),
]
ACKS = [frame.marshal(Basic.Ack(tag, multiple), 1) for tag in range(SENT + 2) for multiple in (False, True)]


class Sink(asyncio.Transport):
    """Discards all written data."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def fed(parts: list[bytes]) -> tuple[Connection, list[Future]]:
    connection = Connection(10, lambda: None)
    connection.connection_made(Sink())
    futures: list[Future] = [asyncio.get_running_loop().create_future() for _ in range(SENT)]
    for number, future in enumerate(futures):
        message = TaskMessage("t", "q", "id", f"publish-{number}", "o", "r", None, b"x")
        connection.send(message.publish_id, connection.encoded(message), future, due_s=number)
    for part in parts:
        connection.data_received(part)
    return connection, futures


@given(st.lists(st.sampled_from(HARMLESS + OTHERS + ACKS) | st.binary(max_size=40), max_size=12))
def test_arbitrary_input_never_leaves_a_publish_without_an_outcome(parts: list[bytes]) -> None:
    async def feed() -> None:
        connection, futures = await fed(parts)
        connection.connection_lost(None)
        assert connection.ended.done()
        assert all(future.done() for future in futures)
        assert len(connection.confirms) == 0

    asyncio.run(feed())


@given(st.lists(st.sampled_from(HARMLESS + OTHERS) | st.binary(max_size=40), max_size=12))
def test_only_an_ack_confirms_a_publish(parts: list[bytes]) -> None:
    async def feed() -> list[Future]:
        connection, futures = await fed(parts)
        connection.connection_lost(None)
        return futures

    assert CONFIRMED not in [future.result() for future in asyncio.run(feed())]


async def test_incomplete_ack_confirms_nothing() -> None:
    for end in range(len(ACKS[3])):
        connection, futures = await fed([ACKS[3][:end]])
        connection.connection_lost(None)
        assert [future.result() for future in futures] == [LOST] * SENT


async def test_error_in_our_own_code_ends_the_connection() -> None:
    connection, futures = await fed([])
    connection.connection_lost(RuntimeError("as asyncio reports it"))
    assert "RuntimeError" in str(connection.ended.result())
    assert {future.result() for future in futures} == {LOST}
