"""Waiting for changes of records: one Redis connection a process, however many wait.

A waiter subscribes, and reads the record once the subscription is confirmed: the record has all earlier changes, and
each later one is published. When the connection is lost, all waiters read again.
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
# Redis is asked so often whether it is there, and given up when it says nothing for twice as long.
PING_INTERVAL_S = 5.0
SILENT_S = 2 * PING_INTERVAL_S
# Reset the silence timer at most once per NOTED_S: resetting it costs as much as reading a message. So Redis may be
# given up NOTED_S too early.
NOTED_S = 1.0
# Batch UNSUBSCRIBE commands for LEAVE_S seconds, or for LEAVE_MAX channels: each alone would be a write, an answer and
# a turn of the event loop. Until then a message may arrive that nobody waits for.
LEAVE_S = 0.5
LEAVE_MAX = 1000
# Clients that wait, of all kinds: 16 KB of memory each, so 160 MB of the pod's 2 GiB. The next one is refused.
WATCHES_MAX = 10_000
# Commands that the connection has not taken. A Redis that reads nothing for so long is given up.
OUTBOX_MAX = 10_000
# Something is always subscribed, so that the connection exists before the first client waits.
IDLE_CHANNEL = "sluice:idle"


class Change(asyncio.Event):
    """Set when a record may have changed."""

    told: states.Record | None = None
    """How the task ended, where that was told: state and result alone."""


@dataclass
class _Topic:
    """One channel: who watches it, and whether Redis has confirmed that we are told of it."""

    watchers: set[Change] = field(default_factory=set)
    confirmed: bool = False

    def wake(self, told: states.Record | None = None) -> None:
        for change in self.watchers:
            change.told = told or change.told
            change.set()


class Waiter:
    """Tells those who wait for a task that its record has changed.

    One task reads the connection, and is the only one to replace it when it is lost; a second one writes to it, and a
    third pings Redis. A waiter only queues its command, and never waits for the connection.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._topics: dict[str, _Topic] = {}
        # Commands for the present connection; None while there is none: the next one begins with every topic.
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
        """How many wait."""
        return self._watches

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._watches >= WATCHES_MAX

    @contextmanager
    def watch(self, task_id: str, *, begin: bool = False) -> Iterator[Change]:
        """Yield what is set by the confirmed subscription, the task's end, its settled key, and a lost connection.

        With `begin`, by its beginning too.

        Whoever reads the record each time it is set misses nothing, however often the connection is lost.
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
        """Let everyone go: the process is about to end."""
        self.draining = True
        self._wake()

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as that takes."""
        while True:
            connection = connection_to(self._url)
            try:
                async with asyncio.timeout(TIMEOUT_S) as silence:
                    await self._listen(connection, silence)
            except Exception as exc:  # noqa: BLE001 - who answers may be no Redis at all; the next one may be
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
        # From here on newcomers subscribe for themselves; no await lies between that and the list of the others.
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
        if unwatched := [channel for channel in left if channel not in self._topics]:  # without a name it means all
            self._send("UNSUBSCRIBE", *unwatched)

    def _send(self, *command: str) -> None:
        if self._outbox is None:
            return
        try:
            self._outbox.put_nowait(command)
        except asyncio.QueueFull:  # the next connection begins with every topic
            self._outbox = None
            with suppress(RuntimeError):  # it has just expired
                cast("asyncio.Timeout", self._silence).reschedule(0)

    def _on_message(self, kind: str, channel: str, message: object = None) -> None:
        topic = self._topics.get(channel)
        if topic is not None and kind in {"subscribe", "message"}:
            topic.confirmed = True
            topic.wake(states.told(str(message)) if kind == "message" else None)

    def _wake(self) -> None:
        for topic in self._topics.values():
            topic.wake()


async def _write(connection: AbstractConnection, outbox: asyncio.Queue[tuple[str, ...]]) -> None:
    """Send what comes, all of it at once."""
    with suppress(RedisError, OSError):  # whoever reads the connection finds out that it is lost
        while True:
            commands = [await outbox.get()]
            while not outbox.empty():
                commands.append(outbox.get_nowait())
            if not connection.is_connected:  # it would connect by itself, beside `run`
                return
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)


async def _ping(outbox: asyncio.Queue[tuple[str, ...]]) -> None:
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        await outbox.put(("PING",))


async def set_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait for an event and clear it; False when it was not set within that time.

    The time-out is around this wait alone: on Python 3.11 redis-py may swallow the cancellation that a time-out around
    a command is, and the command's caller would then wait without any.
    """
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
