"""Waiting for changes of records: one Redis connection a process, however many wait.

Who waits subscribes, and reads once the subscription is confirmed: what changes before is in the record, what
changes after is told. When the connection is lost, everyone who waits reads again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from apps.api.store import OPTIONS
from apps.contract import states

log = logging.getLogger(__name__)

RECONNECT_S = 0.5
# A Redis that says nothing for this long is asked, and given up after as long again.
PING_INTERVAL_S = 5.0
# Something is always subscribed, so that the connection exists before the first client waits.
IDLE_CHANNEL = "sluice:idle"


@dataclass
class _Topic:
    """One channel: who watches it, and whether Redis has confirmed that we are told of it."""

    watchers: set[asyncio.Event] = field(default_factory=set)
    confirmed: bool = False

    def wake(self) -> None:
        for event in self.watchers:
            event.set()


class Waiter:
    """Tells those who wait for a task that its record has changed.

    One task reads the connection, and alone replaces it when it is lost; who comes or goes only writes to it.
    """

    def __init__(self, url: str) -> None:
        # RESP2: there a subscriber's messages are plain answers, read one by one
        self._pool = ConnectionPool.from_url(url, protocol=2, **OPTIONS)
        self._connection: AbstractConnection | None = None
        self._topics: dict[str, _Topic] = {}
        self.draining = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(topic.watchers) for topic in self._topics.values())

    @asynccontextmanager
    async def watch(self, task_id: str) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set by the confirmed subscription, by each change, and by a loss of the connection.

        Whoever reads the record each time it is set misses nothing, however often the connection is lost.
        """
        channel = states.channel(task_id)
        topic = self._topics.setdefault(channel, _Topic())
        event = asyncio.Event()
        first = not topic.watchers
        topic.watchers.add(event)
        try:
            if first:
                await self._send("SUBSCRIBE", channel)
            elif topic.confirmed:
                event.set()
            yield event
        finally:
            topic.watchers.discard(event)
            if not topic.watchers:
                del self._topics[channel]
                await self._send("UNSUBSCRIBE", channel)

    def drain(self) -> None:
        """Let everyone go: the process is about to end."""
        self.draining = True
        self._wake()

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as that takes."""
        while True:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._listen(connection)
            except (RedisError, OSError) as exc:
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)
            self._wake()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, connection: AbstractConnection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        # From here on newcomers subscribe for themselves; no await lies between that and the list of the others.
        self._connection = connection
        for topic in self._topics.values():
            topic.confirmed = False
        channels = [IDLE_CHANNEL, *self._topics]
        pinger = asyncio.create_task(self._ping())
        try:
            await self._send("SUBSCRIBE", *channels)
            while True:
                kind, channel, *_ = await connection.read_response(timeout=2 * PING_INTERVAL_S)
                self._on_message(kind, channel)
        finally:
            pinger.cancel()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            await self._send("PING")

    async def _send(self, *command: str) -> None:
        """Send, if there is a connection: whoever reads it finds out that it is lost, and the next has every topic."""
        connection = self._connection
        if connection is None or not connection.is_connected:  # it would connect by itself, beside `run`
            return
        with suppress(RedisError, OSError):
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)

    def _on_message(self, kind: str, channel: str) -> None:
        topic = self._topics.get(channel)
        if topic is not None and kind in {"subscribe", "message"}:
            topic.confirmed = True
            topic.wake()

    def _wake(self) -> None:
        for topic in self._topics.values():
            topic.wake()
