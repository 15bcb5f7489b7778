"""Answers with a task's status as JSON. Results are stored as JSON, and are sent unchanged."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from apps.api import errors
from apps.api.large_results import PART_BYTES, LargeResults
from apps.api.services import Services
from apps.api.store import Unavailable
from apps.contract import results
from apps.contract.states import Record, State

# Polling interval suggested to clients; they should rather wait with `?wait=`.
POLL_AFTER_S = 1
_RETRY_AFTER = (b"retry-after", str(POLL_AFTER_S).encode())
_JSON = (b"content-type", b"application/json")


class Answer(Response):
    """A route's answer, sent by one of the functions below. The fast path calls them directly."""

    def __init__(self, give: Callable[[Send], Awaitable[None]]) -> None:
        super().__init__()
        self._give = give

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await self._give(send)


async def accepted(send: Send, task_id: str) -> None:
    """Answer 202 to the post of a task."""
    document = b'{"task_id":"%b","task_status":"PENDING"}' % task_id.encode()
    await _start(send, 202, len(document), _RETRY_AFTER, (b"location", f"/tasks/{task_id}".encode()))
    await send({"type": "http.response.body", "body": document})


async def send_status(send: Send, services: Services, task_id: str, record: Record) -> None:
    """Answer 200 with a task's status. Raises the 503 problem before the answer has begun."""
    if not record.large_bytes:
        document = small(task_id, record)
        await _start(send, 200, len(document))
        await send({"type": "http.response.body", "body": document})
        return
    try:
        async with parts(services.large_results, task_id, record) as found:
            await _start(send, 200, sum(map(len, found)))
            for part in found:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)  # let other requests run, even if the client reads without delay
            await send({"type": "http.response.body", "body": b""})
    except Unavailable:
        raise errors.results_unavailable() from None


def small(task_id: str, record: Record) -> bytes:
    """The document of a task with a small result, or without one."""
    return _head(task_id, record.state) + record.meta.encode()[: -1 if record.requeued_as else None] + _tail(record)


@asynccontextmanager
async def parts(large: LargeResults, task_id: str, record: Record) -> AsyncIterator[list[bytes]]:
    """The document of a large result in parts, for the length of the block. Raises Unavailable."""
    async with large.held(task_id, record.large_bytes, record.large_from) as stored:
        # Version 0.1 stored lone surrogates and NaN unchanged. Results of this version are valid and are not checked,
        # which would take too long.
        earlier = record.state == "FAILURE" or not record.large_from
        meta = await asyncio.to_thread(_readable, stored) if earlier else stored
        end = len(meta) - bool(record.requeued_as)
        yield [_head(task_id, record.state), *_cut(meta, end), _tail(record)]


def _readable(stored: bytes) -> bytes:
    return results.readable(stored.decode(errors="replace")).encode()


def _head(task_id: str, state: State) -> bytes:
    return f'{{"task_id":"{task_id}","task_status":"{state}","task_result":'.encode()


def _tail(record: Record) -> bytes:
    """The end of the document. A FAILURE that was requeued has its new id inside of the result."""
    return f',"requeued_as":"{record.requeued_as}"}}}}'.encode() if record.requeued_as else b"}"


def _cut(meta: bytes, end: int) -> Iterator[bytes]:
    for start in range(0, end, PART_BYTES):
        yield meta[start : min(start + PART_BYTES, end)]


async def _start(send: Send, code: int, size_bytes: int, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % size_bytes)
    await send({"type": "http.response.start", "status": code, "headers": [_JSON, length, *headers]})
