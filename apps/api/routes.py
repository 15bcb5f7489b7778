"""Routes for clients: post, read, follow and cancel tasks."""

import asyncio
import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from apps import logs
from apps.api import errors, metrics
from apps.api.acceptance import accept, admit, inputs_of_batch, problem_of
from apps.api.answer import POLL_AFTER_S, Answer, accepted, send_status
from apps.api.auth import require_own
from apps.api.body import read_json
from apps.api.openapi import RESPONSES
from apps.api.publisher import CONFIRMED
from apps.api.request_headers import IdempotencyKey, one_header
from apps.api.services import Services
from apps.api.store import Unavailable
from apps.api.streams import CountedStream, EventStream
from apps.api.task_events import current, events, follow
from apps.contract import states

router = APIRouter(tags=["tasks"])

# Documents of a batch's answer that are built per turn of the event loop: 3 ms if each has ten errors.
DOCUMENTS = 100


async def services(request: Request) -> Services:
    """The services of this process."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


async def client(request: Request, shared: ServicesDep) -> str:
    """The client's name. Raises the 401 problem."""
    return shared.clients.identify(one_header(request, "authorization"))


async def idempotency_key(
    request: Request,
    _: Annotated[
        IdempotencyKey | None,
        Header(
            alias="Idempotency-Key",
            description="Visible ASCII, unique for each task or batch. The same key and body are the same task.",
        ),
    ] = None,
) -> str | None:
    """The request's Idempotency-Key. Raises the 400 problem if it was sent more than once."""
    return one_header(request, "idempotency-key")


async def own_task(task_id: str, owner: "Client", shared: ServicesDep) -> str:
    """The id of a task that belongs to the client. Raises the 404 problem."""
    require_own(shared.ids, owner, task_id)
    logs.task_id.set(task_id)
    return task_id


Client = Annotated[str, Depends(client)]
Key = Annotated[str | None, Depends(idempotency_key)]
OwnTask = Annotated[str, Depends(own_task)]


@router.post("/tasks", status_code=202, summary="Post a task", responses=RESPONSES["post"])
async def post_task(request: Request, owner: Client, key: Key, shared: ServicesDep) -> Response:
    """202 means durable: the broker has confirmed a persistent message in a quorum queue."""
    admit(shared, owner, key)
    body = await read_json(request, shared.settings.body_max_bytes)
    return Answer(partial(accepted, task_id=await accept(shared, owner, key, body)))


@router.post("/tasks/batch", status_code=202, summary="Post up to 1,000 tasks", responses=RESPONSES["batch"])
async def post_batch(request: Request, owner: Client, key: Key, shared: ServicesDep) -> Response:
    """One outcome per input, in the order of the inputs; 202 if any was accepted. A key covers the whole batch.

    A batch that is sent again with its key is completed: accepted inputs keep their ids and are not published again.
    """
    submitter, share = shared.submitter, shared.quotas.of(owner)
    await submitter.require_batch_share(share, owner, key)
    async with share.batches.turn():
        await submitter.require_batch_share(share, owner, key)
        body = await read_json(request, shared.settings.body_max_bytes)
        await submitter.require_batch_share(share, owner, key)
        parsed = await inputs_of_batch(shared, owner, body)
    inputs = [None if isinstance(one, errors.Problem) else one for one in parsed]
    submitted = await submitter.submit(owner, inputs, key=key, body=b"batch " + body)
    problems = [one if isinstance(one, errors.Problem) else None for one in parsed]
    for index, one in enumerate(submitted):
        if one is not None:
            problems[index] = None if one.outcome is CONFIRMED else problem_of(one.outcome)
    outcomes = []
    for index, (one, problem) in enumerate(zip(submitted, problems, strict=True)):
        accepted_one = {"status": 202, "task_id": one.task_id, "task_status": "PENDING"} if one else None
        outcomes.append(errors.document(problem) if problem else accepted_one)
        if index % DOCUMENTS == 0:  # let other requests run
            await asyncio.sleep(0)
    if not all(problems):
        return JSONResponse({"outcomes": outcomes}, 202, headers={"Retry-After": str(POLL_AFTER_S)})
    # prefer a problem that a retry may resolve
    worst = max((problem for problem in problems if problem), key=lambda problem: _WEIGHT[problem.kind])
    raise worst.with_members(outcomes=outcomes)


@router.get("/tasks/{task_id}", summary="Get a task's state and result", responses=RESPONSES["get"])
async def get_task(
    request: Request,
    task_id: OwnTask,
    shared: ServicesDep,
    wait: Annotated[float, Query(ge=0, description="wait up to this many seconds for the end")] = 0,
) -> Response:
    """With `wait`, answers when the task has ended, or after this time with its current state."""
    record = await follow(shared, request.receive, task_id, wait)
    return Answer(partial(send_status, services=shared, task_id=task_id, record=record))


@router.get(
    "/tasks/{task_id}/events", summary="Follow a task", response_class=EventStream, responses=RESPONSES["events"]
)
async def get_events(
    owner: Client,
    task_id: OwnTask,
    shared: ServicesDep,
    last_event_id: Annotated[str | None, Header(description="the last state that the client has received")] = None,
) -> Response:
    """Server-sent events: STARTED if it started, then SUCCESS, FAILURE or REVOKED, then the end of the stream.

    204 for a client that reconnects after the last event: it stops a browser's EventSource from reconnecting.
    """
    record = await current(shared, task_id)
    if last_event_id in states.FINAL:
        return Response(status_code=204)
    stream = events(shared, task_id, record, last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second header disables NGINX's buffering
    return CountedStream(stream, shared.streams, owner, headers)


@router.delete("/tasks/{task_id}", summary="Cancel a task", responses=RESPONSES["delete"])
async def cancel_task(owner: Client, task_id: OwnTask, shared: ServicesDep) -> Response:
    """200: the task will not run. 202: it is running and will be interrupted, except in a pool of threads."""
    await current(shared, task_id)
    record_keys, settings = states.record_keys(task_id), shared.settings
    keys = record_keys.script_keys(task_id, owner, states.CANCEL_CHANNEL)
    arguments = record_keys.script_arguments(time.time(), settings.result_ttl_s, settings.record_ttl_s)
    try:
        found = await shared.store.call(
            "EVAL", states.CANCEL, len(keys), *keys, *arguments, task_id, settings.record_ttl_s
        )
    except Unavailable:
        raise errors.results_unavailable() from None
    metrics.CANCELLED.labels(found).inc()
    if found == "STARTED":
        return JSONResponse(states.status(task_id, "STARTED"), 202, headers={"Retry-After": str(POLL_AFTER_S)})
    if found in {"PENDING", "REVOKED"}:
        return JSONResponse(states.status(task_id, "REVOKED"))
    raise errors.already_ended("FAILURE" if found == "unreadable" else found)


_WEIGHT = {"invalid": 0, "refused": 1, "outcome-unknown": 2}
