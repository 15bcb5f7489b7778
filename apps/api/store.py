"""Redis as the API uses it: one connection a process, on which the commands of all requests travel in batches."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from apps.contract import states

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
# One connection, no retries of redis-py's own: whoever waits decides how long.
OPTIONS: dict[str, Any] = {
    "decode_responses": True,
    "max_connections": 1,
    "socket_timeout": TIMEOUT_S,
    "socket_connect_timeout": TIMEOUT_S,
    "socket_keepalive": True,
    "retry": Retry(NoBackoff(), 0),
}


class Unavailable(Exception):
    """Redis does not answer, or cannot do what it was asked to: it is full, loading, or read-only."""


class Store:
    """Runs commands: what is asked for during a round trip goes into the next one."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, **OPTIONS)
        self._wanted: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(self, *command: Any) -> Any:
        """Run one command; answers as redis-py does. Raises Unavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._wanted.append((command, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_wanted())
        answer = await asyncio.shield(future)  # whoever leaves does not take the answers of others along
        if isinstance(answer, RedisError | OSError):
            raise Unavailable from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def read(self, task_id: str) -> states.Record:
        """A task's record. Raises Unavailable."""
        record = states.decode(await self.call("HGETALL", states.key(task_id)))
        if record.state != "FAILURE":
            return record
        return record.with_requeued(await self.call("HGETALL", states.requeued_key(task_id)))

    async def ping(self) -> bool:
        """Whether Redis answers."""
        with suppress(Unavailable):
            await self.call("PING")
            return True
        return False

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _send_wanted(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted, []
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for command, _ in batch:
                        pipeline.execute_command(*command)
                    answers = await pipeline.execute(raise_on_error=False)
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
                answers = [exc] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
