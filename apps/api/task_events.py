"""Following a task: until it ends (long-poll), or through each of its states (server-sent events)."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from starlette.types import Receive

from apps.api import errors
from apps.api.answer import parts, small
from apps.api.services import Services
from apps.api.store import TIMEOUT_S, Unavailable
from apps.api.waiter import Waiter, set_within
from apps.contract import ids
from apps.contract.states import CLOCKS_S, Record

# Below the minute after which proxies close a silent stream (NGINX's default).
COMMENT_S = 15.0


async def current(services: Services, task_id: str) -> Record:
    """A task's record. Raises the 410 and 503 problems."""
    try:
        record: Record = await services.store.read(task_id)
        if record.state == "PENDING" and await _is_forgotten(services, task_id):
            raise errors.expired()
    except Unavailable:
        raise errors.results_unavailable() from None
    return record


async def _is_forgotten(services: Services, task_id: str) -> bool:
    """Whether an id without a record belongs to an ended task. Redis is queried only if the id is old enough."""
    age_s, settings = time.time() - ids.created_at_s(task_id), services.settings
    if age_s > settings.record_ttl_s:
        return True
    return age_s > settings.result_ttl_s - CLOCKS_S and bool(await services.store.has_ended(task_id))


async def follow(services: Services, receive: Receive, task_id: str, wait_s: float) -> Record:
    """A task's record when it is final, or after `wait_s`. Raises like `current`."""
    if wait_s <= 0:
        return await current(services, task_id)
    if services.waiter.full:
        raise errors.too_many_waiting()
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        return await _wait_for_end(services, gone, task_id, min(wait_s, services.settings.wait_max_s))
    finally:
        gone.cancel()


async def _wait_for_end(services: Services, gone: asyncio.Future[None], task_id: str, limit_s: float) -> Record:
    """Wait for the end of a task; stops if the client disconnects, which releases its slot and subscription."""
    waiter: Waiter = services.waiter
    end_s = time.monotonic() + limit_s
    with waiter.watch(task_id) as changed:
        gone.add_done_callback(lambda _: changed.set())
        # The task was usually just posted: reading it before the subscription is confirmed would add a round trip. If
        # Redis does not confirm the subscription, read the record anyway: the client then learns that Redis is down.
        await set_within(changed, min(limit_s, TIMEOUT_S) if waiter.connected else 0)
        record = changed.published_end or await current(services, task_id)
        in_time = True
        while in_time and not (record.final or waiter.draining or gone.done()):
            in_time = await set_within(changed, end_s - time.monotonic())
            if not gone.done():
                record = changed.published_end or await current(services, task_id)
    return record


async def events(services: Services, task_id: str, record: Record, seen: str | None) -> AsyncIterator[bytes]:
    """Server-sent events with each state of a task once; for a reconnecting client only the states after `seen`.

    After STREAM_MAX_S the stream ends without a final state, and the client reconnects. An outage of Redis only delays
    events. Format: WHATWG HTML, section 9.2.
    """
    waiter: Waiter = services.waiter
    end_s = time.monotonic() + services.settings.stream_max_s
    started = seen == "STARTED"
    yield b": each state once, then the end of the stream\n\n"
    with waiter.watch(task_id, begin=True) as changed:
        while True:
            if record.started_s is not None and not started:
                started = True
                yield b"id: STARTED\nevent: STARTED\ndata: %b\n\n" % small(task_id, Record("STARTED"))
            if record.final:
                with suppress(Unavailable):
                    async with aclosing(_end(services, task_id, record)) as end:  # also if the client disconnects
                        async for part in end:
                            yield part
                    return
            left_s = end_s - time.monotonic()
            if waiter.draining or left_s <= 0:  # the client reconnects, to another replica
                return
            if not await set_within(changed, min(COMMENT_S, left_s)):
                yield b": still here\n\n"
            with suppress(Unavailable):
                record = await services.store.read(task_id)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(services: Services, task_id: str, record: Record) -> AsyncGenerator[bytes, None]:
    """The last event in parts. Raises Unavailable before the first part."""
    head = f"id: {record.state}\nevent: {record.state}\ndata: ".encode()
    if not record.large_bytes:
        yield head + small(task_id, record) + b"\n\n"
        return
    async with parts(services.large_results, task_id, record) as found:
        for part in (head, *found, b"\n\n"):
            yield part
            await asyncio.sleep(0)  # let other requests run
