"""What clients call: post a task, and ask what became of it."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from apps import logs
from apps.api import errors, ops
from apps.api.body import parse_input, read_json
from apps.api.waiter import Records, Unavailable, Waiter
from apps.contract import states
from apps.contract.message import task_message

router = APIRouter(tags=["tasks"])

# Hint for a client that polls; one that can should wait with `?wait=`.
POLL_AFTER_S = 1


class TaskStatus(BaseModel):
    """What is known of a task. `task_result` is its output, or `{type, message}` of a FAILURE."""

    task_id: str
    task_status: states.State
    task_result: Any = None


class Accepted(BaseModel):
    """A task that the broker has."""

    task_id: str
    task_status: states.State


def client(request: Request, authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> str:
    """The name of the client who asks. Raises the 401 problem."""
    name: str = request.app.state.clients.identify(authorization)
    return name


Client = Annotated[str, Depends(client)]


@router.post("/tasks", status_code=202, response_model=Accepted, summary="Post a task")
async def post_task(request: Request, owner: Client) -> Response:
    """202 means durable: the broker has confirmed the message, persistent and in a quorum queue."""
    state = request.app.state
    payload = parse_input(state.inputs, await read_json(request, state.settings.body_max_bytes))
    spec = state.registry[payload.task]
    task_id = state.ids.new(owner)
    logs.task_id.set(task_id)
    message = task_message(spec, payload, task_id=task_id, owner=owner, request_id=logs.request_id.get() or "")
    await _publish(request, message)
    ops.ACCEPTED.labels(spec.name).inc()
    headers = {"Location": f"/tasks/{task_id}", "Retry-After": str(POLL_AFTER_S)}
    return JSONResponse({"task_id": task_id, "task_status": "PENDING"}, 202, headers=headers)


async def _publish(request: Request, message: Any) -> None:
    started_s = time.perf_counter()
    outcome = await request.app.state.publisher.publish(message)
    ops.PUBLISH_SECONDS.labels(outcome.kind).observe(time.perf_counter() - started_s)
    if outcome.kind == "confirmed":
        return
    ops.REFUSED.labels(outcome.reason).inc()
    raise errors.refused(outcome.reason) if outcome.kind == "refused" else errors.outcome_unknown(outcome.reason)


@router.get("/tasks/{task_id}", response_model=TaskStatus, summary="Ask for a task's state and result")
async def get_task(
    request: Request,
    task_id: str,
    owner: Client,
    wait: Annotated[float, Query(ge=0, description="wait up to this many seconds for the end")] = 0,
) -> Response:
    """With `wait`, answers as soon as the task has ended, or after that time with the state it then has."""
    state = request.app.state
    if not state.ids.owns(owner, task_id):
        raise errors.not_found()
    logs.task_id.set(task_id)
    try:
        record = await read(state.records, task_id)
        if wait > 0 and not record.final:
            limit_s = min(wait, state.settings.wait_max_s)
            waiting = wait_for_end(state.waiter, state.records, task_id, limit_s)
            record = await _unless_disconnected(request, waiting) or record
    except Unavailable:
        raise errors.results_unavailable() from None
    return JSONResponse({"task_id": task_id, "task_status": record.state, "task_result": record.result})


async def read(records: Records, task_id: str) -> states.Record:
    """A task's record. Raises Unavailable."""
    record = states.decode(await records.read(states.key(task_id)))
    if record.state != "FAILURE":
        return record
    return record.with_requeued(await records.read(states.requeued_key(task_id)))


async def wait_for_end(waiter: Waiter, records: Records, task_id: str, limit_s: float) -> states.Record:
    """A task's record once it is final, or as it is after `limit_s`. Raises Unavailable."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s), waiter.watch(task_id) as changed:
            while not waiter.draining:
                await changed.wait()
                changed.clear()
                record = await read(records, task_id)
                if record.final:
                    return record
    return await read(records, task_id)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless_disconnected(request: Request, waiting: Awaitable[states.Record]) -> states.Record | None:
    """Wait, but not for a client that has gone: its slot and its subscription are given back at once."""
    result = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        return result.result() if result.done() else None
    finally:
        result.cancel()
        gone.cancel()
