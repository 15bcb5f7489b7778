"""Redis as the API uses it: one connection a process, on which the commands of all requests travel in batches.

    asked for --in the next batch--> sent --answer--> done
       |--the list is full--> Unavailable, at once
       `--TIMEOUT_S after it was asked for, sent or not--> Unavailable

What was not sent by then, or whose caller has gone, is never sent. What was sent to a silent Redis may yet run.
"""

import asyncio
import hashlib
import logging
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from apps.api import metrics
from apps.contract import states

log = logging.getLogger(__name__)

# From the moment that a command is asked for. After a loss, 7,000 clients that wait are read for in 0.5 s.
TIMEOUT_S = 2.0
BATCH_COMMANDS = 200
# Commands that wait to be sent: more than Redis answers in TIMEOUT_S, 10 MB of memory. Beyond it each would be overdue.
WAITING_MAX = 20_000
# How late a deadline may be noticed. One timer for all: one for each command would cost as much as the command.
SWEEP_S = 0.05
# What no answer waits for goes with the next command, or alone after this: at once it would be a round trip of its own.
LATER_S = 0.02
# No retries and no time-outs of redis-py's own: it would set a timer for each answer, and start a task for each write.
# The user of a connection sets one time-out around all that it does. RESP2: a subscriber's messages are plain answers.
_OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": True,
    "encoding_errors": "replace",  # one value that is not UTF-8 must not cost all others their connection
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "socket_keepalive": True,
    "retry": Retry(NoBackoff(), 0),
}

_READ_SHA = hashlib.sha1(states.READ.encode(), usedforsecurity=False).hexdigest()


def connection_to(url: str) -> AbstractConnection:
    """An unopened connection to Redis; what the URL says of time-outs or the protocol does not count."""
    pool = ConnectionPool.from_url(url)
    connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs | _OPTIONS)
    return connection


class Unavailable(Exception):
    """Redis does not answer, or cannot do what it was asked to: it is full, loading, or read-only."""


class _Command(NamedTuple):
    """A command without an answer yet. Without a future its answer is dropped."""

    parts: tuple[Any, ...]
    future: asyncio.Future[Any] | None
    due_s: float

    @property
    def is_abandoned(self) -> bool:
        """Its caller has gone, or was told that it is overdue."""
        return self.future is not None and self.future.done()


class Store:
    """Runs commands: what is asked for during a round trip goes into the next one."""

    def __init__(self, url: str) -> None:
        self._connection = connection_to(url)
        # In the order of their deadlines, which is that of their requests.
        self._waiting: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> int:
        """Commands that wait to be sent, or for their answer."""
        return len(self._waiting) + len(self._sent)

    async def call(self, *command: Any) -> Any:
        """Run one command; its answer as Redis gives it. Raises Unavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(command, future)
        self._send()
        answer = await future
        if isinstance(answer, RedisError | OSError):
            raise Unavailable from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def later(self, *command: Any) -> None:
        """Run one command soon, before those that are asked for after it; nobody hears of its answer or failure."""
        with suppress(Unavailable):
            self._add(command, None)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATER_S, self._send)

    async def read(self, task_id: str) -> states.Record:
        """A task's record. Raises Unavailable."""
        place = states.place(task_id)
        operands = (3, place.record, place.earlier, states.requeued_key(task_id))
        try:
            answer = await self.call("EVALSHA", _READ_SHA, *operands)
        except Unavailable as exc:
            if not isinstance(exc.__cause__, NoScriptError):
                raise
            # the first read of a Redis that was started since
            answer = await self.call("EVAL", states.READ, *operands)
        return states.decode(answer)

    async def has_ended(self, task_id: str) -> bool:
        """Whether a task without a record has ended: its result is no longer kept. Raises Unavailable."""
        place = states.place(task_id)
        return bool(await self.call("SISMEMBER", place.ended, place.member))

    async def ping(self) -> bool:
        """Whether Redis answers."""
        with suppress(Unavailable):
            await self.call("PING")
            return True
        return False

    async def close(self) -> None:
        """Send what is left, as much as goes in the time of a command, and close the connection."""
        self._send()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=TIMEOUT_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._connection.disconnect(nowait=True)  # else it waits for the other end

    def _add(self, parts: tuple[Any, ...], future: asyncio.Future[Any] | None) -> None:
        if len(self._waiting) >= WAITING_MAX:
            metrics.COMMANDS_DROPPED.labels("full").inc()
            raise Unavailable
        loop = asyncio.get_running_loop()
        self._waiting.append(_Command(parts, future, loop.time() + TIMEOUT_S))
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while batch := self._next_batch():
            self._sent.extend(batch)
            try:
                async with asyncio.timeout_at(batch[-1].due_s):
                    answers = await self._round_trip([command.parts for command in batch])
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
                answers = [exc] * len(batch)
            self._sent.clear()
            for command, answer in zip(batch, answers, strict=True):
                if command.future is not None and not command.future.done():
                    command.future.set_result(answer)

    def _next_batch(self) -> list[_Command]:
        batch: list[_Command] = []
        while self._waiting and len(batch) < BATCH_COMMANDS:
            command = self._waiting.popleft()
            if not command.is_abandoned:
                batch.append(command)
        return batch

    def _sweep(self) -> None:
        """Answer what is overdue. A command that was sent stays in its batch: Redis owes an answer to it."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for command in self._sent:
            if command.due_s > now_s:
                break
            _answer_overdue(command)
        while self._waiting and (self._waiting[0].due_s <= now_s or self._waiting[0].is_abandoned):
            _answer_overdue(self._waiting.popleft())
        self._sweeper = loop.call_later(SWEEP_S, self._sweep) if self.unanswered else None

    async def _round_trip(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The answers, errors among them. Raises for a lost connection, which the next one opens again."""
        connection = self._connection
        packed = connection.pack_commands(commands)
        complete = False
        try:
            if connection.is_connected and await connection.can_read():  # nothing is owed to us: Redis has closed it
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]  # does nothing where it is open
            await connection.send_packed_command(packed, check_health=False)
            answers = [await _answer(connection) for _ in commands]
            complete = True
            return answers
        finally:
            if not complete:  # a late answer would be read as the answer to the next command
                await connection.disconnect(nowait=True)


def _answer_overdue(command: _Command) -> None:
    if not command.is_abandoned:
        metrics.COMMANDS_DROPPED.labels("overdue").inc()
        if command.future is not None:
            command.future.set_result(TimeoutError(f"no answer within {TIMEOUT_S:g} s"))


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
