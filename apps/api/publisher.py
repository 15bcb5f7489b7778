"""Confirmed publishing: `publish(message)` answers confirmed, refused or unknown, within its deadline.

    disconnected --connect--> connected --lost--> disconnected      (supervised; backoff with jitter)

    confirmed   the broker acked a persistent, mandatory message: it is in a quorum queue
    refused     it is not, and never will be: no connection, too many in flight, blocked, nack, returned
    unknown     sent, and neither acked nor refused before the deadline or the end of the connection

aiormq carries the frames, over one plain connection; its robust variant would hold publishes back while it
reconnects.
"""

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import aiormq
from aiormq.exceptions import DeliveryError, PublishError

from apps.broker import Lost, connection, losses, publish
from apps.contract import topology
from apps.contract.message import TaskMessage

log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 5.0
PING_DEADLINE_S = 1.0
# Reconnect after 0.1 s, doubling to 2 s, each with jitter: soon after a restart, and not all replicas at once.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """What became of a publish, and why."""

    kind: Literal["confirmed", "refused", "unknown"]
    reason: str = ""


CONFIRMED = Outcome("confirmed")


class Publisher:
    """One connection to the broker, kept up by `run`."""

    def __init__(self, url: str, *, deadline_s: float, in_flight_max: int, heartbeat_s: int) -> None:
        self.in_flight = 0
        self._url = url
        self._heartbeat_s = heartbeat_s
        self._deadline_s = deadline_s
        self._in_flight_max = in_flight_max
        self._connection: aiormq.Connection | None = None
        self._channel: aiormq.abc.AbstractChannel | None = None

    async def publish(self, message: TaskMessage) -> Outcome:
        """Publish one message; never raises but for a cancellation of the caller."""
        if self._channel is None or self._channel.is_closed:
            return Outcome("refused", "broker-away")
        if self.in_flight >= self._in_flight_max:
            return Outcome("refused", "too-many-in-flight")
        if await self._blocked():
            return Outcome("refused", "broker-blocked")
        self.in_flight += 1
        try:
            return await self._send(self._channel, message)
        finally:
            self.in_flight -= 1

    async def ping(self) -> bool:
        """Whether the broker answers, and has the exchange: one round trip."""
        if self._connection is None or self._connection.is_closed:
            return False
        if await self._blocked():  # it would not answer, and each unanswered ping would leave a channel behind
            return False
        try:
            with losses():
                async with asyncio.timeout(PING_DEADLINE_S):
                    channel = await self._connection.channel(publisher_confirms=False)
                    await channel.exchange_declare(topology.EXCHANGE, passive=True)
                    await channel.close()
        except Lost:
            return False
        return True

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        backoff_s = BACKOFF_MIN_S
        try:
            while True:
                try:
                    with losses():
                        await self._connect()
                        backoff_s = BACKOFF_MIN_S
                        await self._lost()
                except Lost as exc:
                    log.warning("broker away", extra={"fields": {"error": str(exc)}})
                await self._close()
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
        finally:
            await self._close()

    async def _send(self, channel: aiormq.abc.AbstractChannel, message: TaskMessage) -> Outcome:
        try:
            with losses():
                async with asyncio.timeout(self._deadline_s):
                    await publish(channel, message)
        except PublishError:  # returned: a kind of DeliveryError, so it comes first
            return Outcome("refused", "unroutable")
        except DeliveryError:  # nacked
            return Outcome("refused", "queue-full")
        except Lost as exc:
            if isinstance(exc.__cause__, TimeoutError):
                return Outcome("unknown", "deadline")
            log.warning("connection lost while publishing", extra={"fields": {"error": str(exc)}})
            return Outcome("unknown", "connection-lost")
        return CONFIRMED

    async def _connect(self) -> None:
        self._connection = connection(self._url, self._heartbeat_s)
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await self._connection.connect()
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        log.info("broker connected", extra={"fields": {"broker": self._connection.url.host}})

    async def _lost(self) -> None:
        parts = [part for part in (self._connection, self._channel) if part is not None]
        closings = {asyncio.ensure_future(self._closed(part)) for part in parts}
        _, pending = await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
        for closing in pending:
            closing.cancel()

    async def _closed(self, part: aiormq.abc.AbstractBase) -> None:
        with suppress(Lost), losses():
            await asyncio.shield(part.closing)  # type: ignore[attr-defined]  # of both, not of their base

    async def _blocked(self) -> bool:
        assert self._connection  # noqa: S101 - publish saw its channel
        try:
            async with asyncio.timeout(0):  # `ready` does not yield unless the broker has blocked us
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def _close(self) -> None:
        lost, self._connection, self._channel = self._connection, None, None
        if lost is not None:
            with suppress(Lost), losses():
                await asyncio.wait_for(lost.close(), PING_DEADLINE_S)
