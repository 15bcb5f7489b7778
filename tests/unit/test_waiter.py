"""The waiter's supervision of its connection, with a scripted Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from apps.api import waiter
from apps.api.store import connection_to
from apps.api.waiter import Waiter
from tests.harness.fake_broker import until

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0


class Redis:
    """Counts connections and pings; does not answer while `silent`."""

    def __init__(self) -> None:
        self.connections = self.pings = 0
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while command := await self._command(reader):
            self.pings += command[0] == b"PING"
            if not self.silent:
                writer.write(_answer(command))
        writer.close()

    @staticmethod
    async def _command(reader: asyncio.StreamReader) -> list[bytes]:
        head = await reader.readline()
        return [await _bulk(reader) for _ in range(int(head[1:]))] if head else []


async def _bulk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readline())[1:])
    return (await reader.readexactly(size + 2))[:-2]


def _answer(command: list[bytes]) -> bytes:
    match command:
        case [b"SUBSCRIBE", *channels]:
            return b"".join(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(one), one) for one in channels)
        case [b"PING"]:
            return b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        case _:
            return b"+OK\r\n"


@asynccontextmanager
async def listening(redis: Redis) -> AsyncIterator[None]:
    server = await asyncio.start_server(redis.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(Waiter(f"redis://127.0.0.1:{port}/0").run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(waiter, "SILENT_S", 2.0)
    monkeypatch.setattr(waiter, "NOTED_S", 0.1)
    monkeypatch.setattr(waiter, "RECONNECT_S", 0.01)


async def test_connection_that_only_answers_pings_is_kept() -> None:
    redis = Redis()
    async with listening(redis):
        await until(lambda: redis.pings > 2.5 * waiter.SILENT_S / waiter.PING_INTERVAL_S, DEADLINE_S)
        assert redis.connections == 1


async def test_silent_connection_is_replaced() -> None:
    redis = Redis()
    async with listening(redis):
        await until(lambda: redis.pings > 1, DEADLINE_S)
        redis.silent = True
        await until(lambda: redis.connections > 1, DEADLINE_S)


async def test_timeout_of_a_new_connection_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "SILENT_S", 2 * DEADLINE_S)
    monkeypatch.setattr(waiter, "TIMEOUT_S", 0.2)
    redis = Redis()
    redis.silent = True  # redis-py sends its first commands and waits for the answers
    async with listening(redis):
        await until(lambda: redis.connections > 1, DEADLINE_S)


def test_parameters_of_the_url_do_not_change_timeouts_or_protocol() -> None:
    connection = connection_to("redis://localhost/0?socket_timeout=2&socket_connect_timeout=2&protocol=3")
    assert (connection.socket_timeout, connection.socket_connect_timeout, connection.protocol) == (None, None, 2)
