"""Large results from Redis, on connections of their own, so that nothing small waits for one.

    record says "large" -> a slot of its lane -> GETRANGE on a connection of the lane -> sent in parts -> slot free

The slots bound the memory: a result is held from its reading until the client has taken it. It is
read as a whole, but passes through the event loop in pieces, on its way in and out. A client that takes nothing
loses its connection (`apps.api.http`), and its slot is free again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError  # noqa: A004 - Python's own is another one

from apps.api.store import Unavailable, connection_to
from apps.contract import states
from apps.contract.states import SMALL_BYTES_MAX

log = logging.getLogger(__name__)

# Of an answer, sent at once: above what uvicorn lets a client be behind with, so that each part is waited for.
PART_BYTES = 128 * 1024
# For a slot and a connection, from the request on: longer than a client that takes nothing keeps a slot
# (`apps.api.http`). After that a reader is told to ask again.
SLOT_DEADLINE_S = 15.0
# Readers that wait in one lane; the next one is told at once.
WAITING_MAX = 1000
# 64 MiB, the most that a result may have, at 100 Mbit/s.
READ_DEADLINE_S = 6.0
# Two, so that one is read while the other's round trip ends. More would take turns from requests for small results.
CONNECTIONS = 2


@dataclass
class _Lane:
    """Results up to a size; none waits for one of another lane."""

    max_bytes: int | None
    slots: asyncio.Semaphore
    connections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    idle: list[AbstractConnection] = field(default_factory=list)
    waiting: int = 0

    async def acquire(self, semaphore: asyncio.Semaphore, due_s: float) -> None:
        """Wait for a slot or a connection until then. Raises Unavailable."""
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
    """Reads them, a bounded number at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        # 64 of a quarter MiB, and 8 of up to 64 MiB: 16 MiB and 512 MiB at the very most, in a pod of 2 GiB; 24 MiB in
        # all where results have 1 MiB at most, the default.
        self._lanes = (_Lane(16 * SMALL_BYTES_MAX, asyncio.Semaphore(64)), _Lane(None, asyncio.Semaphore(8)))

    @property
    def waiting(self) -> int:
        """Readers that wait for a slot or a connection."""
        return sum(lane.waiting for lane in self._lanes)

    @asynccontextmanager
    async def held(self, task_id: str, size_bytes: int, start: int) -> AsyncIterator[bytes]:
        """The meta of a task's record, for as long as the block lasts; `start` is where it begins in the record.

        Raises Unavailable.
        """
        place = states.place(task_id)
        command = ("GETRANGE", place.record, start, -1) if start else ("HGET", place.earlier, "meta")
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
                    except ConnectionError:  # it was closed meanwhile; a new one is opened
                        value = await _meta(connection, command)
            except Exception as exc:
                log.warning("large result not read", extra={"fields": {"error": repr(exc)}})
                raise Unavailable from exc
            finally:
                lane.idle.append(connection)
        finally:
            lane.connections.release()
        if not value:  # the record has expired since it was read
            raise Unavailable
        return value


async def _meta(connection: AbstractConnection, command: tuple[Any, ...]) -> bytes | None:
    complete = False
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # does nothing where it is open
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        value: bytes | None = await connection.read_response(disable_decoding=True)
        complete = True
    finally:
        if not complete:  # a late answer would be read as the answer to the next command
            await connection.disconnect(nowait=True)
    return value
