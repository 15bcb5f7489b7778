"""What a client can call: post tasks, ask what became of them, follow them, cancel them."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from apps import logs
from apps.api import errors, ops
from apps.api.answer import TaskAnswer
from apps.api.body import is_light, one_header, parse_batch, parse_input, read_json
from apps.api.following import current, events, follow, status
from apps.api.idempotency import FORM, KEY_MAX
from apps.api.openapi import RESPONSES, STREAM
from apps.api.publisher import CONFIRMED, Outcome
from apps.api.store import Unavailable
from apps.api.streams import CountedStream
from apps.api.submission import Submitted
from apps.contract import states

router = APIRouter(tags=["tasks"])

# Hint for a client that polls; one that can should wait with `?wait=`.
POLL_AFTER_S = 1
# Of a batch's answer, made in one step of the event loop. With ten errors each they take 3 ms.
DOCUMENTS = 100


async def client(request: Request) -> str:
    """The name of the client who asks. Raises the 401 problem."""
    name: str = request.app.state.clients.identify(one_header(request, "authorization"))
    return name


async def idempotency_key(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=FORM,
            max_length=KEY_MAX,
            description="Visible ASCII, new for each task or batch; sent again with the same body it is the same task.",
        ),
    ] = None,
) -> str | None:
    """The request's key. Raises the 400 problem where it was sent twice."""
    return one_header(request, "idempotency-key")


async def own_task(request: Request, task_id: str, owner: "Client") -> str:
    """A task's id, if it is one of the client's. Raises the 404 problem."""
    if not request.app.state.ids.owns(owner, task_id):
        raise errors.not_found()
    logs.task_id.set(task_id)
    return task_id


Client = Annotated[str, Depends(client)]
Key = Annotated[str | None, Depends(idempotency_key)]
OwnTask = Annotated[str, Depends(own_task)]


@router.post("/tasks", status_code=202, summary="Post a task", responses=RESPONSES["post"])
async def post_task(request: Request, owner: Client, key: Key) -> Response:
    """202 means durable: the broker has confirmed the message, persistent and in a quorum queue."""
    state = request.app.state
    if key is None:
        state.quotas.require_one(owner)
    body = await read_json(request, state.settings.body_max_bytes)
    payload = parse_input(state.inputs, body) if is_light(body) else await state.parser.parse_input(owner, body)
    (submitted,) = await state.submitter.submit(owner, [payload], key=key, body=body)
    if submitted.outcome is not CONFIRMED:
        raise problem_of(submitted.outcome)
    headers = {"Location": f"/tasks/{submitted.task_id}", "Retry-After": str(POLL_AFTER_S)}
    return JSONResponse(_accepted(submitted), 202, headers=headers)


@router.post("/tasks/batch", status_code=202, summary="Post up to 1,000 tasks", responses=RESPONSES["batch"])
async def post_batch(request: Request, owner: Client, key: Key) -> Response:
    """One outcome per input, in their order; 202 if any was accepted. A key covers the whole batch.

    Sent again with its key, a batch is completed: what was accepted keeps its id and is not published again.
    """
    state = request.app.state
    share = state.quotas.of(owner)
    await state.submitter.require_batch_share(share, owner, key)
    async with share.batches.turn():
        await state.submitter.require_batch_share(share, owner, key)
        body = await read_json(request, state.settings.body_max_bytes)
        await state.submitter.require_batch_share(share, owner, key)
        if is_light(body):
            parsed = parse_batch(state.batch, state.inputs, body)
        else:
            parsed = await state.parser.parse_batch(owner, body)
    inputs = [None if isinstance(one, errors.Problem) else one for one in parsed]
    submitted = await state.submitter.submit(owner, inputs, key=key, body=b"batch " + body)
    problems = [one if isinstance(one, errors.Problem) else None for one in parsed]
    for index, one in enumerate(submitted):
        if one is not None:
            problems[index] = None if one.outcome is CONFIRMED else problem_of(one.outcome)
    outcomes = []
    for index, (one, problem) in enumerate(zip(submitted, problems, strict=True)):
        outcomes.append({"status": 202, **_accepted(one)} if problem is None else errors.document(problem))
        if index % DOCUMENTS == 0:  # it is the others' turn
            await asyncio.sleep(0)
    if not all(problems):
        return JSONResponse({"outcomes": outcomes}, 202, headers={"Retry-After": str(POLL_AFTER_S)})
    # what may yet change by sending it again comes first
    worst = max((problem for problem in problems if problem), key=lambda problem: _WEIGHT[problem.kind])
    raise worst.with_members(outcomes=outcomes)


@router.get("/tasks/{task_id}", summary="Ask for a task's state and result", responses=RESPONSES["get"])
async def get_task(
    request: Request,
    task_id: OwnTask,
    wait: Annotated[float, Query(ge=0, description="wait up to this many seconds for the end")] = 0,
) -> Response:
    """With `wait`, answers as soon as the task has ended, or after that time with the state it then has."""
    record = await follow(request.app.state, request.receive, task_id, wait)
    return TaskAnswer(request.app.state, task_id, record)


@router.get("/tasks/{task_id}/events", summary="Follow a task", response_class=STREAM, responses=RESPONSES["events"])
async def get_events(
    request: Request,
    owner: Client,
    task_id: OwnTask,
    last_event_id: Annotated[str | None, Header(description="the state that a client has seen last")] = None,
) -> Response:
    """Server-sent events: STARTED if it started, then SUCCESS, FAILURE or REVOKED, then the end of the stream.

    204 for a client that comes back after the last one: it tells a browser's EventSource to stay away.
    """
    state = request.app.state
    record = await current(request.app.state, task_id)
    if last_event_id in states.FINAL:
        return Response(status_code=204)
    stream = events(state, task_id, record, last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second: NGINX hands on each event at once
    return CountedStream(stream, state.streams, owner, headers)


@router.delete("/tasks/{task_id}", summary="Cancel a task", responses=RESPONSES["delete"])
async def cancel_task(request: Request, owner: Client, task_id: OwnTask) -> Response:
    """200: it will not run. 202: it runs, and is asked to end; a pool of threads lets it run out."""
    state = request.app.state
    await current(request.app.state, task_id)
    place, settings = states.place(task_id), state.settings
    keys = place.keys(task_id, owner, states.CANCEL_CHANNEL)
    arguments = place.arguments(time.time(), settings.result_ttl_s, settings.record_ttl_s)
    try:
        found = await state.store.call(
            "EVAL", states.CANCEL, len(keys), *keys, *arguments, task_id, settings.record_ttl_s
        )
    except Unavailable:
        raise errors.results_unavailable() from None
    ops.CANCELLED.labels(found).inc()
    if found == "STARTED":
        return JSONResponse(status(task_id, "STARTED"), 202, headers={"Retry-After": str(POLL_AFTER_S)})
    if found in {"PENDING", "REVOKED"}:
        return JSONResponse(status(task_id, "REVOKED"))
    raise errors.already_ended("FAILURE" if found == "unreadable" else found)


def _accepted(submitted: Submitted) -> dict[str, Any]:
    return {"task_id": submitted.task_id, "task_status": "PENDING"}


def problem_of(outcome: Outcome) -> errors.Problem:
    """What a client is told of a publish that is not confirmed."""
    return errors.refused(outcome.reason) if outcome.kind == "refused" else errors.outcome_unknown(outcome.reason)


_WEIGHT = {"invalid": 0, "refused": 1, "outcome-unknown": 2}
