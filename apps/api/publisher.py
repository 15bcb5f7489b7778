"""Confirmed publishing: `publish(message)` answers confirmed, refused or unknown, within its deadline.

    away --connect, to one host after the other--> connected --lost--> away      (backoff with jitter)
                                                       `--stop--> draining --all answered--> closed

A publish while connected:

    waiting --there is room on the wire--> sent --ack, nack, return, deadline, lost--> (apps/amqp/confirms.py)
       |--deadline or lost--> refused: it never left
       `--no room here either, blocked, silent, away, draining--> refused at once

    confirmed   the broker acked a persistent, mandatory message: it is in a quorum queue
    refused     it is not, and never will be: see the reasons below
    unknown     sent, and neither acked nor refused before the deadline or the end of the connection
"""

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress
from itertools import count

from apps.amqp.address import addresses
from apps.amqp.confirms import CONFIRMED, Future, Outcome
from apps.amqp.connection import Connection, Ended, Refused
from apps.contract.message import TaskMessage
from apps.startup import broker_refused, tls_failure

__all__ = ["CONFIRMED", "Outcome", "Publisher"]

log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 5.0
PING_DEADLINE_S = 1.0
# Reconnect after 0.1 s, doubling to 2 s, each with jitter: soon after a restart, and not all replicas at once.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0
# Unanswered on the wire: it fills the pipe to the broker. With 1,000 the broker itself takes a third as many a second.
WINDOW = 256
# Of bodies that wait for room: as many as there may be publishes of a usual size, and few of the largest.
WAITING_MAX_BYTES = 16 * 1024 * 1024
# An answer that is so late, longer than the election of a queue's leader, will not come on this connection: a node that
# has just come back, or is parted from the others, may never answer, and another one does. Whoever asked was told.
OWED_MAX_S = 10.0
# How late a deadline may be noticed.
SWEEP_S = 0.05

AWAY = Outcome("refused", "broker-away")
TOO_MANY = Outcome("refused", "too-many-in-flight")
BLOCKED = Outcome("refused", "broker-blocked")
# It owes answers past their deadline, and has sent nothing at all in that time.
SILENT = Outcome("refused", "broker-silent")
# No room on the wire before the deadline.
SLOW = Outcome("refused", "broker-slow")
DRAINING = Outcome("refused", "shutting-down")


class Publisher:
    """One connection to the broker, kept up by `run`."""

    def __init__(self, url: str, *, deadline_s: float, in_flight_max: int, heartbeat_s: int) -> None:
        self._addresses = addresses(url)
        self._deadline_s = deadline_s
        self._in_flight_max = in_flight_max
        self._heartbeat_s = heartbeat_s
        self._connection: Connection | None = None
        # of one connection: publish id, frames, outcome, deadline
        self._waiting: deque[tuple[str, bytes, Future, float]] = deque()
        self._waiting_bytes = 0
        self._silent = self._draining = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._pinging: asyncio.Task[None] | None = None
        # of a start: the broker has accepted the credentials, or refused them
        self._answered = asyncio.Event()
        self._refused: Exception | None = None

    @property
    def in_flight(self) -> int:
        """Publishes that wait, and those that the broker has not answered, also where nobody waits for it any more."""
        return len(self._waiting) + (len(self._connection.confirms) if self._connection else 0)

    async def publish(self, message: TaskMessage) -> Outcome:
        """Publish one message. Raises only for a cancelled caller, and for what cannot be encoded: it is not sent."""
        connection = self._connection
        if connection is None or connection.ended.done():
            return AWAY
        if refusal := self._refusal(connection):
            return refusal
        encoded = connection.encoded(message)
        loop = connection.loop  # asking for the running one would be a system call
        future: Future = loop.create_future()
        due_s = loop.time() + self._deadline_s
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        if not self._waiting and self._has_room(connection):
            connection.send(message.publish_id, encoded, future, due_s)
        else:
            self._waiting.append((message.publish_id, encoded, future, due_s))
            self._waiting_bytes += len(encoded)
        return await future

    async def ping(self) -> bool:
        """Whether the broker answers, and has the exchange: one round trip, shared by all who ask meanwhile."""
        connection = self._connection
        # blocked, it would not answer
        if connection is None or connection.ended.done() or connection.blocked or self._draining:
            return False
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(connection.ping())
            self._pinging.add_done_callback(_heard)  # also when nobody waits for it any more
        with suppress(Ended, TimeoutError):
            async with asyncio.timeout(PING_DEADLINE_S):
                await asyncio.shield(self._pinging)
            return True
        return False

    async def wait_started(self, deadline_s: float) -> None:
        """Wait until the broker has accepted the credentials, or none of its hosts could be reached for this long each.

        Raises apps.startup.Refused where it refuses them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s * len(self._addresses)):
                await self._answered.wait()
        if self._refused is not None:
            raise self._refused

    async def run(self) -> None:
        """Keep the connection up until cancelled; then refuse what comes, and wait for what was sent."""
        tries = 0
        try:
            for turn in count():
                address = self._addresses[turn % len(self._addresses)]
                try:
                    async with asyncio.timeout(CONNECT_DEADLINE_S):
                        self._connection = await Connection.open(address, self._heartbeat_s, self._on_change)
                    log.info("broker connected", extra={"fields": {"broker": address.host}})
                    tries = 0
                    self._answered.set()
                    raise await asyncio.shield(self._connection.ended)  # noqa: TRY301 - as any other reason
                except Exception as exc:  # noqa: BLE001 - whatever it is: without this task nothing is published again
                    fields = {"broker": address.host, "error": str(exc) or repr(exc)}
                    log.warning("broker away", extra={"fields": fields})
                    refused = isinstance(exc, Refused) or tls_failure(exc) is not None
                    if refused and not self._answered.is_set():
                        self._refused = broker_refused(address.host, exc)
                        self._answered.set()
                rounds, others = divmod(tries, len(self._addresses))
                tries += 1
                if not others:
                    backoff_s = min(BACKOFF_MIN_S * 2**rounds, BACKOFF_MAX_S)
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
        finally:
            await self._drain()

    def _refusal(self, connection: Connection) -> Outcome | None:
        """Why nothing may be added to what is under way."""
        if self._draining:
            return DRAINING
        if connection.blocked:
            return BLOCKED
        if self._silent:
            return SILENT
        if self.in_flight >= self._in_flight_max or self._waiting_bytes > WAITING_MAX_BYTES:
            return TOO_MANY
        return None

    def _has_room(self, connection: Connection) -> bool:
        return len(connection.confirms) < WINDOW and not connection.held

    def _on_change(self) -> None:
        """The broker has sent something, the write buffer is empty again, or the connection has ended."""
        connection = self._connection
        if connection is None:
            return
        self._silent = False
        while self._waiting and connection.ended.done():
            _tell(self._next_waiting()[2], AWAY)
        while self._waiting and self._has_room(connection):
            publish_id, encoded, future, due_s = self._next_waiting()
            if not future.done():
                connection.send(publish_id, encoded, future, due_s)

    def _next_waiting(self) -> tuple[str, bytes, Future, float]:
        publish = self._waiting.popleft()
        self._waiting_bytes -= len(publish[1])
        return publish

    def _sweep(self) -> None:
        """Tell those whose deadline has passed."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._waiting and self._waiting[0][3] <= now_s:
            _tell(self._next_waiting()[2], SLOW)
        connection = self._connection
        owed_s = connection.confirms.expire(now_s) if connection is not None else None
        if connection is not None and owed_s is not None:
            self._silent = now_s - connection.received_s >= self._deadline_s
            if owed_s > OWED_MAX_S:
                connection.give_up(f"an answer is overdue by {OWED_MAX_S:g} s")
        self._sweeper = loop.call_later(SWEEP_S, self._sweep) if self.in_flight else None

    async def _drain(self) -> None:
        """Nothing new; what is under way has until its deadline."""
        self._draining = True
        if self._connection is not None:
            asked = [*(future for *_, future, _ in self._waiting), *self._connection.confirms.asked]
            if asked:
                await asyncio.wait(asked)
            await self._connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()


def _heard(ping: asyncio.Task[None]) -> None:
    if not ping.cancelled():
        ping.exception()


def _tell(future: Future, outcome: Outcome) -> None:
    if not future.done():  # whoever asked has gone
        future.set_result(outcome)
