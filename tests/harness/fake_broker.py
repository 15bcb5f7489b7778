"""A broker on a real socket whose frames a test determines, for behaviour that no real broker can be made to show."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from apps.api.publisher import Publisher

T = TypeVar("T")

PROTOCOL_HEADER_BYTES = 8
FRAME_HEAD_BYTES = 7


class Published(NamedTuple):
    """A message as the peer received it."""

    method: Basic.Publish
    header: ContentHeader
    body: bytes

    @property
    def publish_id(self) -> str:
        return str(self.header.properties.message_id)


class Session:
    """A connection of a client to the peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: Any, channel: int = 1) -> None:
        """Send a method, or another frame that pamqp can marshal."""
        self.writer.write(frame.marshal(method, channel))

    async def frame(self) -> Any:
        """Return the next frame, without heartbeats. IncompleteReadError at the end of the connection."""
        while True:
            head = await self.reader.readexactly(FRAME_HEAD_BYTES)
            size = int.from_bytes(head[3:], "big")
            found = frame.unmarshal(head + await self.reader.readexactly(size + 1))[2]
            if not isinstance(found, Heartbeat):
                return found

    async def expect(self, kind: type[T]) -> T:
        """Return the next frame, and assert that it is of this kind."""
        found = await self.frame()
        assert isinstance(found, kind), f"{found} instead of {kind}"
        return found

    async def message(self) -> Published:
        """Read a message, and assert that nothing else comes first."""
        method, header = await self.expect(Basic.Publish), await self.expect(ContentHeader)
        body = b""
        while len(body) < header.body_size:
            body += (await self.expect(ContentBody)).value
        return Published(method, header, body)

    async def messages(self, count: int) -> list[Published]:
        """Read `count` messages."""
        return [await self.message() for _ in range(count)]

    async def start(self, mechanisms: str = "AMQPLAIN PLAIN") -> Connection.StartOk:
        """Do the handshake up to the client's credentials."""
        assert await self.reader.readexactly(PROTOCOL_HEADER_BYTES) == ProtocolHeader().marshal()
        self.send(Connection.Start(0, 9, {}, mechanisms, "en_US"), 0)
        return await self.expect(Connection.StartOk)

    async def tune(self, frame_max: int = 131_072, heartbeat: int = 60) -> Connection.Open:
        """Do the handshake up to the client's choice of a virtual host."""
        await self.start()
        self.send(Connection.Tune(2047, frame_max, heartbeat), 0)
        self.tuned = await self.expect(Connection.TuneOk)
        return await self.expect(Connection.Open)

    async def open(self, frame_max: int = 131_072, heartbeat: int = 60) -> None:
        """Do the whole handshake as RabbitMQ does it."""
        await self.tune(frame_max, heartbeat)
        self.send(Connection.OpenOk(), 0)
        for asked, answer in _OPENING:
            await self.expect(asked)
            self.send(answer)

    async def goodbye(self) -> None:
        """Expect the client to close the connection in an orderly way."""
        await self.expect(Connection.Close)
        self.send(Connection.CloseOk(), 0)

    def reset(self) -> None:
        """Reset the connection, as the kernel of a crashed machine does."""
        self.writer.transport.abort()


_OPENING = (
    (Channel.Open, Channel.OpenOk()),
    (Exchange.Declare, Exchange.DeclareOk()),
    (Confirm.Select, Confirm.SelectOk()),
)


class Peer:
    """Listens on a loopback port; each connection becomes a session."""

    def __init__(self, port: int, sessions: "asyncio.Queue[Session]") -> None:
        self.port = port
        self._sessions = sessions

    def url(self, scheme: str = "amqp", host: str = "127.0.0.1") -> str:
        """Return its URL."""
        return f"{scheme}://user:secret%2F@{host}:{self.port}/a%2Fvhost"

    async def session(self) -> Session:
        """Wait for the next connection."""
        async with asyncio.timeout(60):
            return await self._sessions.get()

    async def opened(self, **tuning: int) -> Session:
        """Wait for the next connection, and do its handshake."""
        session = await self.session()
        await session.open(**tuning)
        return session


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A context manager that runs a peer and resets its connections at the end."""
    sessions: asyncio.Queue[Session] = asyncio.Queue()
    everyone: list[Session] = []

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everyone.append(Session(reader, writer))
        sessions.put_nowait(everyone[-1])

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=tls)
    try:
        yield Peer(server.sockets[0].getsockname()[1], sessions)
    finally:
        server.close()
        for session in everyone:
            session.reset()


@asynccontextmanager
async def running(
    url: str, *, deadline_s: float = 5.0, in_flight_max: int = 1000, heartbeat_s: int = 10, patience_s: float = 30.0
) -> AsyncIterator[Publisher]:
    """A context manager that runs a publisher; ending it may take `patience_s`."""
    publisher = Publisher(url, deadline_s=deadline_s, in_flight_max=in_flight_max, heartbeat_s=heartbeat_s)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        async with asyncio.timeout(patience_s):
            await asyncio.wait([task])


async def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    """Poll until the condition holds. TimeoutError after the deadline."""
    async with asyncio.timeout(deadline_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def eventually(ask: Callable[[], Awaitable[T]], wanted: T, deadline_s: float = 60.0) -> None:
    """Poll until `ask` returns `wanted`. TimeoutError after the deadline."""
    async with asyncio.timeout(deadline_s):
        while True:
            if await ask() == wanted:
                return
            await asyncio.sleep(0.05)
