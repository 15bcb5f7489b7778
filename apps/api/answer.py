"""What a client is told of a task, as JSON: its result is stored as JSON, and is sent as it is stored."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from starlette.datastructures import State as AppState
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from apps.api import errors
from apps.api.large import PART_BYTES, LargeResults
from apps.api.store import Unavailable
from apps.contract import results
from apps.contract.states import Record, State

_JSON = (b"content-type", b"application/json")


class TaskAnswer(Response):
    """The answer 200 that tells of a task. Raises the 503 problem before it has begun."""

    def __init__(self, state: AppState, task_id: str, record: Record) -> None:
        super().__init__()
        self._about = (state, task_id, record)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await tell(send, *self._about)


async def tell(send: Send, state: AppState, task_id: str, record: Record) -> None:
    """Answer 200 with what is known of a task. Raises the 503 problem before the answer has begun."""
    if not record.large_bytes:
        await _start(send, document := small(task_id, record))
        await send({"type": "http.response.body", "body": document})
        return
    try:
        async with parts(state["large"], task_id, record) as found:
            await _start(send, *found)
            for part in found:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)  # between two parts it is the others' turn, even if the client takes all at once
            await send({"type": "http.response.body", "body": b""})
    except Unavailable:
        raise errors.results_unavailable() from None


def small(task_id: str, record: Record) -> bytes:
    """The document where the result is with the record, or there is none."""
    return _head(task_id, record.state) + record.meta.encode()[: -1 if record.requeued_as else None] + _tail(record)


@asynccontextmanager
async def parts(large: LargeResults, task_id: str, record: Record) -> AsyncIterator[list[bytes]]:
    """The document of a large result, for as long as the block lasts. Raises Unavailable."""
    async with large.held(task_id, record.large_bytes, record.large_from) as stored:
        # Version 0.1 stored lone surrogates and NaN as they came. What this version has stored is valid, and is not
        # looked through: that takes too long.
        earlier = record.state == "FAILURE" or not record.large_from
        meta = await asyncio.to_thread(_readable, stored) if earlier else stored
        end = len(meta) - bool(record.requeued_as)
        yield [_head(task_id, record.state), *_cut(meta, end), _tail(record)]


def _readable(stored: bytes) -> bytes:
    return results.readable(stored.decode(errors="replace")).encode()


def _head(task_id: str, state: State) -> bytes:
    return f'{{"task_id":"{task_id}","task_status":"{state}","task_result":'.encode()


def _tail(record: Record) -> bytes:
    """What ends the document: a FAILURE that was sent again tells its new id inside of the result."""
    return f',"requeued_as":"{record.requeued_as}"}}}}'.encode() if record.requeued_as else b"}"


def _cut(meta: bytes, end: int) -> Iterator[bytes]:
    for start in range(0, end, PART_BYTES):
        yield meta[start : min(start + PART_BYTES, end)]


async def _start(send: Send, *document: bytes) -> None:
    length = (b"content-length", b"%d" % sum(map(len, document)))
    await send({"type": "http.response.start", "status": 200, "headers": [_JSON, length]})
