"""The API's Redis client: one connection per process, which sends the commands of all requests in batches.

    waiting --in the next batch--> sent --answer--> done
       |--the queue is full--> Unavailable, immediately
       `--TIMEOUT_S after the call, sent or not--> Unavailable

An overdue command, or one whose caller has left, is not sent any more. A command that was sent to a silent Redis may
still run.
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

# From the call of a command. After a lost connection, the records for 7,000 waiting clients are read in 0.5 s.
TIMEOUT_S = 2.0
BATCH_COMMANDS = 200
# Waiting commands: 10 MB of memory. Redis answers fewer in TIMEOUT_S, so further commands would be overdue.
WAITING_MAX = 20_000
# Precision of deadlines. All commands share a timer: a timer per command would cost as much as the command.
SWEEP_S = 0.05
# A command without a caller is sent with the next batch, or alone after this time, to save a round trip.
LATER_S = 0.02
# No retries and time-outs of redis-py, which would create a timer for each answer, and a task for each write. Code that
# uses a connection sets one time-out around all its operations. RESP2: messages of subscriptions are plain answers.
_OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": True,
    "encoding_errors": "replace",  # a value that is not UTF-8 must not end the shared connection
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "socket_keepalive": True,
    "retry": Retry(NoBackoff(), 0),
}

_READ_SHA = hashlib.sha1(states.READ.encode(), usedforsecurity=False).hexdigest()


def connection_to(url: str) -> AbstractConnection:
    """An unopened connection to Redis. It ignores time-outs and the protocol version in the URL."""
    pool = ConnectionPool.from_url(url)
    connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs | _OPTIONS)
    return connection


class Unavailable(Exception):
    """Redis does not answer, or cannot run the command: it is full, loading, or read-only."""


class _Command(NamedTuple):
    """An unanswered command. Without a future, its answer is dropped."""

    parts: tuple[Any, ...]
    future: asyncio.Future[Any] | None
    due_s: float

    @property
    def is_abandoned(self) -> bool:
        """Whether its caller has left, or was already answered that it is overdue."""
        return self.future is not None and self.future.done()


class Store:
    """Runs commands. Those that are called during a round trip are sent with the next one."""

    def __init__(self, url: str) -> None:
        self._connection = connection_to(url)
        # in the order of their calls, and so of their deadlines
        self._waiting: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> int:
        """The number of commands that are not sent or not answered."""
        return len(self._waiting) + len(self._sent)

    async def call(self, *command: Any) -> Any:
        """Run a command; returns Redis' answer. Raises Unavailable."""
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
        """Run a command soon, before any later one. Its answer and its failure are ignored."""
        with suppress(Unavailable):
            self._add(command, None)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATER_S, self._send)

    async def read(self, task_id: str) -> states.Record:
        """A task's record. Raises Unavailable."""
        record_keys = states.record_keys(task_id)
        operands = (3, record_keys.record, record_keys.earlier, states.requeued_key(task_id))
        try:
            answer = await self.call("EVALSHA", _READ_SHA, *operands)
        except Unavailable as exc:
            if not isinstance(exc.__cause__, NoScriptError):
                raise
            # Redis was restarted, and does not have the script
            answer = await self.call("EVAL", states.READ, *operands)
        return states.decode(answer)

    async def has_ended(self, task_id: str) -> bool:
        """Whether a task without a record has ended, and its result has expired. Raises Unavailable."""
        record_keys = states.record_keys(task_id)
        return bool(await self.call("SISMEMBER", record_keys.ended, record_keys.member))

    async def ping(self) -> bool:
        """Whether Redis answers."""
        with suppress(Unavailable):
            await self.call("PING")
            return True
        return False

    async def close(self) -> None:
        """Send the remaining commands, for at most TIMEOUT_S, and close the connection."""
        self._send()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=TIMEOUT_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._connection.disconnect(nowait=True)  # otherwise it waits for Redis

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
            except Exception as exc:  # noqa: BLE001 - after any error, no caller may wait for ever
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
        """Answer overdue commands. A sent command stays in its batch, as Redis will answer it."""
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
        """The answers, which may be errors. Raises if the connection is lost; the next round trip reopens it."""
        connection = self._connection
        packed = connection.pack_commands(commands)
        complete = False
        try:
            if connection.is_connected and await connection.can_read():  # no answer is due: Redis has closed it
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]  # does nothing if it is open
            await connection.send_packed_command(packed, check_health=False)
            answers = [await _answer(connection) for _ in commands]
            complete = True
            return answers
        finally:
            if not complete:  # the next command would get a late answer
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
