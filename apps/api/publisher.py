"""Confirmed publishing: `publish(message)` returns confirmed, refused or unknown within its deadline.

    away --connect to the hosts in turn--> connected --lost--> away              (backoff with jitter)
                                               `--stop--> draining --all answered--> closed

A publish while connected:

    waiting --there is room on the wire--> sent --ack, nack, return, deadline, lost--> (apps/amqp/confirms.py)
       |--deadline or lost--> refused: it was never sent
       `--queue full, blocked, silent, away, draining--> refused immediately

    confirmed   the broker acked a persistent, mandatory message: it is in a quorum queue
    refused     it is not in a queue, and never will be; the reasons are below
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
# Reconnect after 0.1 s, doubled up to 2 s, with jitter: soon after a restart, but not all replicas at the same time.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0
# Unconfirmed publishes on the connection: enough to use it fully. With 1,000 the broker's rate drops to a third.
WINDOW = 256
# Size of the waiting messages: enough for the maximum number of messages of usual size, but few of the largest.
WAITING_MAX_BYTES = 16 * 1024 * 1024
# If an answer is overdue by this, which is longer than the election of a queue's leader, close the connection: a node
# that has just restarted, or is partitioned, may never answer, and another node may. The caller already has its
# outcome.
OWED_MAX_S = 10.0
# Precision of deadlines.
SWEEP_S = 0.05

AWAY = Outcome("refused", "broker-away")
TOO_MANY = Outcome("refused", "too-many-in-flight")
BLOCKED = Outcome("refused", "broker-blocked")
# The broker has overdue answers, and has sent nothing for the duration of a deadline.
SILENT = Outcome("refused", "broker-silent")
# Not sent before the deadline.
SLOW = Outcome("refused", "broker-slow")
DRAINING = Outcome("refused", "shutting-down")


class Publisher:
    """One connection to the broker, maintained by `run`."""

    def __init__(self, url: str, *, deadline_s: float, in_flight_max: int, heartbeat_s: int) -> None:
        self._addresses = addresses(url)
        self._deadline_s = deadline_s
        self._in_flight_max = in_flight_max
        self._heartbeat_s = heartbeat_s
        self._connection: Connection | None = None
        # for the current connection: publish id, frames, outcome, deadline
        self._waiting: deque[tuple[str, bytes, Future, float]] = deque()
        self._waiting_bytes = 0
        self._silent = self._draining = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._pinging: asyncio.Task[None] | None = None
        # at the start: the broker has accepted or refused the credentials
        self._answered = asyncio.Event()
        self._refused: Exception | None = None

    @property
    def in_flight(self) -> int:
        """The number of waiting and unanswered publishes, including those whose callers have left."""
        return len(self._waiting) + (len(self._connection.confirms) if self._connection else 0)

    async def publish(self, message: TaskMessage) -> Outcome:
        """Publish one message. Raises only if the caller is cancelled, or if the message cannot be encoded."""
        connection = self._connection
        if connection is None or connection.ended.done():
            return AWAY
        if refusal := self._refusal(connection):
            return refusal
        encoded = connection.encoded(message)
        loop = connection.loop  # get_running_loop() would make a system call
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
        """Whether the broker answers and has the exchange. Concurrent callers share one round trip."""
        connection = self._connection
        # a broker that blocks the connection does not answer
        if connection is None or connection.ended.done() or connection.blocked or self._draining:
            return False
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(connection.ping())
            self._pinging.add_done_callback(_heard)  # its callers may have left
        with suppress(Ended, TimeoutError):
            async with asyncio.timeout(PING_DEADLINE_S):
                await asyncio.shield(self._pinging)
            return True
        return False

    async def wait_started(self, deadline_s: float) -> None:
        """Wait until the broker has accepted the credentials, at most `deadline_s` for each host.

        Raises apps.startup.Refused if the broker refuses them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s * len(self._addresses)):
                await self._answered.wait()
        if self._refused is not None:
            raise self._refused

    async def run(self) -> None:
        """Maintain the connection until cancelled. Then refuse new publishes, and wait for the open ones."""
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
                    raise await asyncio.shield(self._connection.ended)  # noqa: TRY301 - handled like any other error
                except Exception as exc:  # noqa: BLE001 - this task must survive any error: only it reconnects
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
        """Why new publishes are refused now, or None."""
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
        """Called when data was received, when the write buffer is empty again, and when the connection has ended."""
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
        """Resolve publishes whose deadline has passed."""
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
        """Refuse new publishes, wait for the open ones until their deadlines, and close the connection."""
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
    if not future.done():  # else the caller has left
        future.set_result(outcome)
