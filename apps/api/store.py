"""Redis as the API uses it: one connection a process, on which the commands of all requests travel in batches."""

import asyncio
import hashlib
import logging
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from apps.contract import states

log = logging.getLogger(__name__)

# For a batch, so of bounded size: thousands that read again after a loss are not all refused for the last of them.
TIMEOUT_S = 2.0
BATCH_COMMANDS = 200
# What no answer waits for goes with the next command, or alone after this: at once it would be a round trip of its own.
LATER_S = 0.02
# No retries and no time-outs of redis-py's own: it would set a timer for each answer, and start a task for each write.
# Whoever uses a connection says how long, once for all that it does. RESP2: a subscriber's messages are plain answers.
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


class Store:
    """Runs commands: what is asked for during a round trip goes into the next one."""

    def __init__(self, url: str) -> None:
        self._connection = connection_to(url)
        self._wanted: list[tuple[tuple[Any, ...], asyncio.Future[Any] | None]] = []
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, *command: Any) -> Any:
        """Run one command; its answer as Redis gives it. Raises Unavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._wanted.append((command, future))
        self._send()
        answer = await asyncio.shield(future)  # whoever leaves does not take the answers of others along
        if isinstance(answer, RedisError | OSError):
            raise Unavailable from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def later(self, *command: Any) -> None:
        """Run one command soon, before those that are asked for after it; nobody hears of its answer or failure."""
        self._wanted.append((command, None))
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
        """Send what is left, as much as goes in the time of a batch, and close the connection."""
        self._send()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=TIMEOUT_S)
        await self._connection.disconnect(nowait=True)  # else it waits for the other end

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wanted and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send_wanted())

    async def _send_wanted(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted[:BATCH_COMMANDS], self._wanted[BATCH_COMMANDS:]
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answers = await self._round_trip([command for command, _ in batch])
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
                answers = [exc] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future is not None:
                    future.set_result(answer)

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


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
