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
from aiormq.exceptions import AMQPError, DeliveryError, PublishError
from pamqp.commands import Basic
from yarl import URL

from apps.contract import topology
from apps.contract.message import CONTENT_TYPE, TaskMessage

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
        self._url = URL(url).update_query(heartbeat=heartbeat_s)
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
        connection = self._connection
        if connection is None or connection.is_closed:
            return False
        try:
            async with asyncio.timeout(PING_DEADLINE_S):
                channel = await connection.channel(publisher_confirms=False)
                await channel.exchange_declare(topology.EXCHANGE, passive=True)
                await channel.close()
        except (AMQPError, OSError, RuntimeError, TimeoutError):
            return False
        return True

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        backoff_s = BACKOFF_MIN_S
        try:
            while True:
                try:
                    await self._connect()
                    backoff_s = BACKOFF_MIN_S
                    await self._lost()
                except (AMQPError, OSError, RuntimeError, TimeoutError) as exc:
                    log.warning("broker away", extra={"fields": {"error": repr(exc)}})
                await self._close()
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
        finally:
            await self._close()

    async def _send(self, channel: aiormq.abc.AbstractChannel, message: TaskMessage) -> Outcome:
        try:
            async with asyncio.timeout(self._deadline_s):
                await channel.basic_publish(
                    message.body,
                    exchange=topology.EXCHANGE,
                    routing_key=message.routing_key,
                    mandatory=True,
                    properties=_properties(message),
                )
        except PublishError:  # returned: a kind of DeliveryError, so it comes first
            return Outcome("refused", "unroutable")
        except DeliveryError:  # nacked
            return Outcome("refused", "queue-full")
        except TimeoutError:
            return Outcome("unknown", "deadline")
        except (AMQPError, OSError, RuntimeError) as exc:
            log.warning("connection lost while publishing", extra={"fields": {"error": repr(exc)}})
            return Outcome("unknown", "connection-lost")
        except asyncio.CancelledError:
            # aiormq cancels its waiters when a connection ends; only our own cancellation is the caller's
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return Outcome("unknown", "connection-lost")
        return CONFIRMED

    async def _connect(self) -> None:
        self._connection = aiormq.Connection(self._url)
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await self._connection.connect()
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        log.info("broker connected", extra={"fields": {"broker": self._url.host}})

    async def _lost(self) -> None:
        parts = [part for part in (self._connection, self._channel) if part is not None]
        closings = {asyncio.ensure_future(self._closed(part)) for part in parts}
        _, pending = await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
        for closing in pending:
            closing.cancel()

    async def _closed(self, part: aiormq.abc.AbstractBase) -> None:
        with suppress(AMQPError, OSError, RuntimeError, asyncio.CancelledError):
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
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(AMQPError, OSError, RuntimeError, TimeoutError):
                await asyncio.wait_for(connection.close(), PING_DEADLINE_S)


def _properties(message: TaskMessage) -> Basic.Properties:
    return Basic.Properties(
        headers=message.headers,
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        correlation_id=message.task_id,
        message_id=message.task_id,  # aiormq matches a returned message by it
        delivery_mode=2,  # persistent
        reply_to="",
        priority=0,
    )
