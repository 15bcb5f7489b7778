"""Waiting for changes of records, with one Redis connection per process for any number of waiters.

A waiter subscribes, and reads the record after the subscription is confirmed: the record includes all earlier changes,
and later ones are published. When the connection is lost, all waiters read their records again.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from apps.api.store import TIMEOUT_S, connection_to
from apps.contract import states

log = logging.getLogger(__name__)

RECONNECT_S = 0.5
# Redis is pinged at this interval. If it is silent for SILENT_S, the connection is closed.
PING_INTERVAL_S = 5.0
SILENT_S = 2 * PING_INTERVAL_S
# Reset the silence timer at most once per NOTED_S: resetting it costs as much as reading a message. The connection may
# therefore be closed NOTED_S too early.
NOTED_S = 1.0
# Batch UNSUBSCRIBE commands for LEAVE_S seconds, or for LEAVE_MAX channels: each command would cost a write, an answer
# and a turn of the event loop. Until then, messages without a waiter may arrive.
LEAVE_S = 0.5
LEAVE_MAX = 1000
# Waiting clients of all kinds: 16 KB of memory each, 160 MB of the pod's 2 GiB in all. More are refused.
WATCHES_MAX = 10_000
# Commands that are not written yet. If Redis does not read, and there are more, the connection is closed.
OUTBOX_MAX = 10_000
# Always subscribed, so that the connection exists before the first client waits.
IDLE_CHANNEL = "sluice:idle"


class Change(asyncio.Event):
    """Set when a record may have changed."""

    published_end: states.Record | None = None
    """The end of the task if it was published: only state and result."""


@dataclass
class _Topic:
    """A channel: its watchers, and whether Redis has confirmed the subscription."""

    watchers: set[Change] = field(default_factory=set)
    confirmed: bool = False

    def wake(self, published_end: states.Record | None = None) -> None:
        for change in self.watchers:
            change.published_end = published_end or change.published_end
            change.set()


class Waiter:
    """Notifies waiters of changes of their task's record.

    `run` reads the connection and reconnects; a second asyncio task writes to it, and a third one pings Redis. Waiters
    only queue commands, and never wait for the connection.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._topics: dict[str, _Topic] = {}
        # Commands for the current connection, or None without one: a new connection subscribes to every topic.
        self._outbox: asyncio.Queue[tuple[str, ...]] | None = None
        self._left: list[str] = []
        self._watches = 0
        self._silence: asyncio.Timeout | None = None
        self.draining = False

    @property
    def connected(self) -> bool:
        """Whether a subscription will be confirmed soon."""
        return self._outbox is not None

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return self._watches

    @property
    def full(self) -> bool:
        """Whether the limit of waiters is reached."""
        return self._watches >= WATCHES_MAX

    @contextmanager
    def watch(self, task_id: str, *, begin: bool = False) -> Iterator[Change]:
        """Yield an event that is set when the task's record may have changed.

        It is set when the subscription is confirmed, the task ends, its key is settled, or the connection is lost;
        with `begin`, also when the task starts.

        A waiter that reads the record each time it is set misses no change, however often the connection is lost.
        """
        change = Change()
        channels = [states.channel(task_id), states.begun_channel(task_id)][: 1 + begin]
        for channel in channels:
            self._enter(channel, change)
        self._watches += 1
        try:
            yield change
        finally:
            self._watches -= 1
            for channel in channels:
                self._leave(channel, change)

    def drain(self) -> None:
        """Release all waiters, as the process is about to end."""
        self.draining = True
        self._wake()

    async def run(self) -> None:
        """Listen until cancelled; reconnects if necessary."""
        while True:
            connection = connection_to(self._url)
            try:
                async with asyncio.timeout(TIMEOUT_S) as silence:
                    await self._listen(connection, silence)
            except Exception as exc:  # noqa: BLE001 - retry after any error, even if another server answers
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
            finally:
                self._outbox = None
                await connection.disconnect(nowait=True)
            self._wake()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, connection: AbstractConnection, silence: asyncio.Timeout) -> None:
        now_s = asyncio.get_running_loop().time
        await connection.connect()  # type: ignore[no-untyped-call]
        heard_s = now_s()
        silence.reschedule(heard_s + SILENT_S)
        # From here on, new waiters subscribe themselves. No await may follow before SUBSCRIBE for the existing ones.
        for topic in self._topics.values():
            topic.confirmed = False
        self._outbox = asyncio.Queue(OUTBOX_MAX)
        self._silence = silence
        self._send("SUBSCRIBE", IDLE_CHANNEL, *self._topics)
        writer = asyncio.create_task(_write(connection, self._outbox))
        pinger = asyncio.create_task(_ping(self._outbox))
        try:
            while True:
                self._on_message(*await connection.read_response())
                if now_s() > heard_s + NOTED_S:
                    heard_s = now_s()
                    silence.reschedule(heard_s + SILENT_S)
        finally:
            writer.cancel()
            pinger.cancel()

    def _enter(self, channel: str, change: Change) -> None:
        topic = self._topics.setdefault(channel, _Topic())
        topic.watchers.add(change)
        if len(topic.watchers) == 1:
            self._send("SUBSCRIBE", channel)
        elif topic.confirmed:
            change.set()

    def _leave(self, channel: str, change: Change) -> None:
        topic = self._topics[channel]
        topic.watchers.remove(change)
        if topic.watchers:
            return
        del self._topics[channel]
        if not self._left:
            asyncio.get_running_loop().call_later(LEAVE_S, self._unsubscribe)
        self._left.append(channel)
        if len(self._left) >= LEAVE_MAX:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        left, self._left = self._left, []
        if unwatched := [channel for channel in left if channel not in self._topics]:  # no channels would mean all
            self._send("UNSUBSCRIBE", *unwatched)

    def _send(self, *command: str) -> None:
        if self._outbox is None:
            return
        try:
            self._outbox.put_nowait(command)
        except asyncio.QueueFull:  # a new connection subscribes to every topic
            self._outbox = None
            with suppress(RuntimeError):  # it has just expired
                cast("asyncio.Timeout", self._silence).reschedule(0)

    def _on_message(self, kind: str, channel: str, message: object = None) -> None:
        topic = self._topics.get(channel)
        if topic is not None and kind in {"subscribe", "message"}:
            topic.confirmed = True
            topic.wake(states.published_end(str(message)) if kind == "message" else None)

    def _wake(self) -> None:
        for topic in self._topics.values():
            topic.wake()


async def _write(connection: AbstractConnection, outbox: asyncio.Queue[tuple[str, ...]]) -> None:
    """Send queued commands, all in one write."""
    with suppress(RedisError, OSError):  # the reader detects the lost connection
        while True:
            commands = [await outbox.get()]
            while not outbox.empty():
                commands.append(outbox.get_nowait())
            if not connection.is_connected:  # redis-py would reconnect; only `run` may
                return
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)


async def _ping(outbox: asyncio.Queue[tuple[str, ...]]) -> None:
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        await outbox.put(("PING",))


async def set_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait for an event and clear it; returns False if it was not set in time.

    Use the time-out only around this wait, not around a command: on Python 3.11, redis-py may swallow the cancellation
    of a time-out, and the caller would wait without a limit.
    """
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
