"""Reads large results from Redis, on separate connections, so that small commands never wait for them.

    record says "large" -> a slot of its lane -> GETRANGE on a connection of the lane -> sent in parts -> slot free

Slots bound the memory: a result is in memory until the client has received it. It is read as a whole, but received and
sent in pieces, so that it does not block the event loop. A client that does not read loses its connection
(`apps.api.http`), which frees its slot.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError  # noqa: A004 - not Python's ConnectionError

from apps.api.store import Unavailable, connection_to
from apps.contract import states
from apps.contract.states import SMALL_BYTES_MAX

log = logging.getLogger(__name__)

# Bytes per send: above uvicorn's limit for its write buffer, so each part waits for the client.
PART_BYTES = 128 * 1024
# Maximum wait for a slot and a connection: longer than a client that does not read keeps a slot (`apps.api.http`).
# After it, the answer is 503.
SLOT_DEADLINE_S = 15.0
# Waiting readers per lane; more get a 503 immediately.
WAITING_MAX = 1000
# For 64 MiB, the largest result, at 100 Mbit/s.
READ_DEADLINE_S = 6.0
# Per lane: one result is read during the other's round trip. More would delay requests for small results.
CONNECTIONS = 2


@dataclass
class _Lane:
    """Results up to a size; they do not wait for results in other lanes."""

    max_bytes: int | None
    slots: asyncio.Semaphore
    connections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    idle: list[AbstractConnection] = field(default_factory=list)
    waiting: int = 0

    async def acquire(self, semaphore: asyncio.Semaphore, due_s: float) -> None:
        """Wait for a slot or a connection until `due_s`. Raises Unavailable."""
        if self.waiting >= WAITING_MAX:
            raise Unavailable
        self.waiting += 1
        try:
            async with asyncio.timeout_at(due_s):
                await semaphore.acquire()
        except TimeoutError:
            raise Unavailable from None
        finally:
            self.waiting -= 1


class LargeResults:
    """Reads a bounded number of large results at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        # 64 results of up to 256 KiB, and 8 of up to 64 MiB: 16 MiB and 512 MiB at most, in a pod of 2 GiB; 24 MiB in
        # all with the default limit of 1 MiB per result.
        self._lanes = (_Lane(16 * SMALL_BYTES_MAX, asyncio.Semaphore(64)), _Lane(None, asyncio.Semaphore(8)))

    @property
    def waiting(self) -> int:
        """The number of readers that wait for a slot or a connection."""
        return sum(lane.waiting for lane in self._lanes)

    @asynccontextmanager
    async def held(self, task_id: str, size_bytes: int, start: int) -> AsyncIterator[bytes]:
        """The meta of a task's record, for the length of the block; `start` is its offset in the record.

        Raises Unavailable.
        """
        record_keys = states.record_keys(task_id)
        command = ("GETRANGE", record_keys.record, start, -1) if start else ("HGET", record_keys.earlier, "meta")
        lane = next(one for one in self._lanes if one.max_bytes is None or size_bytes <= one.max_bytes)
        due_s = asyncio.get_running_loop().time() + SLOT_DEADLINE_S
        await lane.acquire(lane.slots, due_s)
        try:
            yield await self._read(lane, command, due_s)
        finally:
            lane.slots.release()

    async def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes:
            for connection in lane.idle:
                await connection.disconnect(nowait=True)
            lane.idle.clear()

    async def _read(self, lane: _Lane, command: tuple[Any, ...], due_s: float) -> bytes:
        await lane.acquire(lane.connections, due_s)
        try:
            connection = lane.idle.pop() if lane.idle else connection_to(self._url)
            try:
                async with asyncio.timeout(READ_DEADLINE_S):
                    try:
                        value = await _meta(connection, command)
                    except ConnectionError:  # an idle connection was closed: reopen it
                        value = await _meta(connection, command)
            except Exception as exc:
                log.warning("large result not read", extra={"fields": {"error": repr(exc)}})
                raise Unavailable from exc
            finally:
                lane.idle.append(connection)
        finally:
            lane.connections.release()
        if not value:  # the record has expired in the meantime
            raise Unavailable
        return value


async def _meta(connection: AbstractConnection, command: tuple[Any, ...]) -> bytes | None:
    complete = False
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # does nothing if it is open
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        value: bytes | None = await connection.read_response(disable_decoding=True)
        complete = True
    finally:
        if not complete:  # the next command would get a late answer
            await connection.disconnect(nowait=True)
    return value
