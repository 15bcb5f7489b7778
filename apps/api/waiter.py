"""Records as the API reads them, and waiting for their changes: two Redis connections a process, however many wait.

A long-poll subscribes, and reads once the subscription is confirmed: what changes before is in the record, what
changes after is told. When the subscribing connection is lost, everyone who waits reads again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from apps.contract import states

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
RECONNECT_S = 0.5
# A Redis that says nothing for this long is asked, and given up after as long again.
PING_INTERVAL_S = 5.0
# Something is always subscribed, so that the connection exists before the first client waits.
IDLE_CHANNEL = "sluice:idle"


class Unavailable(Exception):
    """Redis does not answer."""


class Records:
    """Reads records in batches over one connection: what is asked for during a round trip goes into the next."""

    def __init__(self, url: str) -> None:
        self._redis = _client(url)
        self._wanted: dict[str, asyncio.Future[dict[str, str]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def read(self, key: str) -> dict[str, str]:
        """The hash under `key`, empty where there is none. Raises Unavailable."""
        future = self._wanted.get(key)
        if future is None:
            future = self._wanted[key] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_wanted())
        return await asyncio.shield(future)  # one reader's disconnect is not another's

    async def ping(self) -> bool:
        """Whether Redis answers."""
        with suppress(Unavailable):
            await self.read(IDLE_CHANNEL)
            return True
        return False

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _read_wanted(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted, {}
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in batch:
                        pipeline.hgetall(key)
                    answers = await pipeline.execute()
            except (RedisError, OSError) as exc:
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
                for future in batch.values():
                    future.set_exception(Unavailable())
                    future.exception()  # nobody may be left to look at it
            else:
                for future, answer in zip(batch.values(), answers, strict=True):
                    future.set_result(answer)


@dataclass
class _Topic:
    """One channel: who watches it, and how many of our SUBSCRIBEs Redis has yet to confirm."""

    watchers: set[asyncio.Event] = field(default_factory=set)
    unconfirmed: int = 0
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)

    def subscribing(self) -> None:
        self.unconfirmed += 1
        self.confirmed.clear()

    def on_confirmed(self) -> None:
        self.unconfirmed -= 1
        if self.unconfirmed <= 0:
            self.confirmed.set()

    def wake(self) -> None:
        for event in self.watchers:
            event.set()


class Waiter:
    """Tells those who wait for a task that its record has changed."""

    def __init__(self, url: str) -> None:
        self._redis = _client(url)
        self._pubsub: PubSub | None = None
        self._topics: dict[str, _Topic] = {}
        self.draining = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(topic.watchers) for topic in self._topics.values())

    @asynccontextmanager
    async def watch(self, task_id: str) -> AsyncIterator[asyncio.Event]:
        """Yield, once subscribed, an event that is set by each change, and by a loss of the connection.

        Raises Unavailable.
        """
        channel = states.channel(task_id)
        topic = self._topics.setdefault(channel, _Topic())
        event = asyncio.Event()
        first = not topic.watchers
        topic.watchers.add(event)
        try:
            await self._subscribed(channel, topic, first=first)
            yield event
        finally:
            topic.watchers.discard(event)
            await self._leave(channel, topic)

    def drain(self) -> None:
        """Let everyone go: the process is about to end."""
        self.draining = True
        self._wake()

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as that takes."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await self._listen(pubsub)
            except (RedisError, OSError) as exc:
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
            finally:
                self._pubsub = None
            self._wake()
            await asyncio.sleep(RECONNECT_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _listen(self, pubsub: PubSub) -> None:
        for topic in self._topics.values():
            topic.unconfirmed = 0
            topic.subscribing()
        await pubsub.subscribe(IDLE_CHANNEL, *self._topics)
        self._pubsub = pubsub
        self._wake()
        asked = False
        while True:
            message = await pubsub.get_message(timeout=PING_INTERVAL_S)
            if message is not None:
                asked = False
                self._on_message(message["type"], message["channel"])
            elif asked:
                raise TimeoutError("no answer to a ping")
            else:
                await pubsub.ping()
                asked = True

    def _on_message(self, kind: str, channel: str) -> None:
        topic = self._topics.get(channel)
        if topic is None:
            return
        if kind == "message":
            topic.wake()
        elif kind == "subscribe":
            topic.on_confirmed()
            self._forget(channel, topic)

    async def _subscribed(self, channel: str, topic: _Topic, *, first: bool) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if first and self._pubsub is not None:  # else the next connection subscribes to it
                    topic.subscribing()
                    await self._pubsub.subscribe(channel)
                await topic.confirmed.wait()
        except (RedisError, OSError) as exc:
            raise Unavailable from exc

    async def _leave(self, channel: str, topic: _Topic) -> None:
        if topic.watchers:
            return
        self._forget(channel, topic)
        with suppress(RedisError, OSError):
            if self._pubsub is not None:
                await self._pubsub.unsubscribe(channel)

    def _forget(self, channel: str, topic: _Topic) -> None:
        # kept while a SUBSCRIBE is under way, or its confirmation would be taken for that of a later one
        if not topic.watchers and topic.unconfirmed <= 0 and self._topics.get(channel) is topic:
            del self._topics[channel]

    def _wake(self) -> None:
        for topic in self._topics.values():
            topic.wake()


def _client(url: str) -> Redis:
    # One connection, no retries of redis-py's own: whoever waits decides how long.
    return Redis.from_url(
        url,
        decode_responses=True,
        max_connections=1,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )
