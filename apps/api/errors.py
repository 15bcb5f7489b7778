"""All error answers, as RFC 9457 problem documents.

Problem
|-- 400 malformed          |-- 401 unauthenticated   |-- 404 not-found         |-- 409 request-open
|-- 408 too-slow           |-- 409 already-ended     |-- 410 expired           |-- 413 too-large
|-- 413 too-complex        |-- 415 not-json          |-- 422 invalid           |-- 422 key-reused
|-- 429 quota-exceeded     |-- 429 too-many-streams  |-- 500 internal
|-- 404 not-found, 405 method-not-allowed  of a path
|-- 503 refused            definite: nothing was accepted, retry after Retry-After
|-- 503 outcome-unknown    the task may have been accepted
|-- 503 results-full       also definite: Redis has room only for the results of accepted tasks
|-- 503 results-unavailable, too-many-waiting, streams-full
`-- 503 not-ready, unhealthy  of /readyz and /healthz
"""

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from apps import logs
from apps.api import metrics
from apps.contract.quota import Quota
from apps.contract.text import clean, clean_all

MEDIA_TYPE = "application/problem+json"
# Limit per text in a problem: a validator's message or a field's name can have a MiB.
TEXT_MAX_CHARS = 1000
# Long enough for a reconnect to the broker, and short for a person.
RETRY_AFTER_S = 2


class Problem(Exception):
    """An error that is sent to the client. `kind` is its stable name for programs."""

    held_s = 0.0
    """Delay before the answer is sent; apps/api/quotas.py explains it."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    async def hold(self) -> None:
        """Wait for the delay of the answer."""
        if self.held_s:
            await asyncio.sleep(self.held_s)

    def with_members(self, **members: Any) -> "Problem":
        """A copy with additional members."""
        return Problem(self.status, self.kind, self.detail, headers=self.headers, **self.members, **members)


def malformed(detail: str) -> Problem:
    """The request cannot be read."""
    return Problem(400, "malformed", detail)


def unauthenticated() -> Problem:
    """The request has no valid bearer key."""
    detail = "send a key of this API as 'Authorization: Bearer <key>'"
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def not_found() -> Problem:
    """The id was never created, or belongs to another client: the answers must be the same."""
    return Problem(404, "not-found", "no task of yours has this id")


def no_such_path() -> Problem:
    """Nothing is served at the request's path."""
    return Problem(404, "not-found", "there is nothing at this path")


def method_not_allowed(allowed: Iterable[str]) -> Problem:
    """The path has other methods."""
    methods = allow(allowed)
    return Problem(405, "method-not-allowed", f"the methods of this path are {methods}", headers={"Allow": methods})


def allow(methods: Iterable[str]) -> str:
    """The value of an `Allow` header."""
    return ", ".join(sorted(methods))


def request_open() -> Problem:
    """Another request with this Idempotency-Key has no outcome yet."""
    detail = "a request with this Idempotency-Key is still open; send it again after Retry-After"
    return Problem(409, "request-open", detail, headers=_retry_after())


def already_ended(state: str) -> Problem:
    """The task has ended before the cancel."""
    return Problem(409, "already-ended", f"the task has ended: {state}", task_status=state)


def expired() -> Problem:
    """The task's record has expired."""
    return Problem(410, "expired", "the result of this task is no longer kept")


def too_large(limit_bytes: int) -> Problem:
    """The body exceeds the limit."""
    return Problem(413, "too-large", f"the body may have {limit_bytes} bytes at most")


def too_complex(bound: str) -> Problem:
    """The body exceeds the limit of keys, elements or levels, or of the time for parsing."""
    return Problem(413, "too-complex", f"the body is too complex: {bound}")


def not_json() -> Problem:
    """The body's content type is not JSON."""
    return Problem(415, "not-json", "send the body as 'Content-Type: application/json'")


def invalid(errors: list[dict[str, Any]]) -> Problem:
    """The body is JSON, but not a valid input."""
    return Problem(422, "invalid", "the body does not describe a task; see errors", errors=errors)


def key_reused() -> Problem:
    """The Idempotency-Key was used with another body before."""
    return Problem(422, "key-reused", "this Idempotency-Key was used with another body; a new task needs a new key")


def too_slow(what: str, limit_s: float) -> Problem:
    """The request did not arrive in time."""
    return Problem(408, "too-slow", f"the {what} of a request must arrive within {limit_s:g} s of its first byte")


def quota_exceeded(limits: Quota, exceeded: str, tasks: int, *, after_s: int, held_s: float = 0.0) -> Problem:
    """The client has used up its quota: nothing was accepted."""
    allowed = {
        "open_tasks": f"{limits.open_tasks} tasks that wait or run at once",
        "tasks_per_s": f"{limits.tasks_per_s} accepted tasks per second",
    }[exceeded]
    advice = f"send it again after {after_s} s"
    if tasks > limits.open_tasks:
        advice = f"a batch may have {limits.open_tasks} tasks at most"
    detail = f"nothing was accepted: the quota of this client is {allowed}; {advice}"
    quota = {**limits._asdict(), "exceeded": exceeded}
    problem = Problem(429, "quota-exceeded", detail, headers={"Retry-After": str(after_s)}, quota=quota)
    problem.held_s = held_s
    return problem


def too_many_streams(limit: int) -> Problem:
    """The client has reached its limit of open event streams."""
    detail = f"{limit} event streams of this client are open: close one, or ask with ?wait="
    return Problem(429, "too-many-streams", detail, headers=_retry_after())


def streams_full() -> Problem:
    """The process has reached its limit of open event streams."""
    detail = "no more event streams can be opened: ask with ?wait=, or open it after Retry-After"
    return Problem(503, "streams-full", detail, headers=_retry_after())


def refused(reason: str) -> Problem:
    """Definite: nothing was accepted."""
    detail = f"the task was not accepted ({reason}); send it again after Retry-After"
    return Problem(503, "refused", detail, headers=_retry_after(), reason=reason)


def outcome_unknown(reason: str) -> Problem:
    """The task may have been accepted."""
    detail = f"the broker did not confirm in time ({reason}); the outcome is unknown: the task may yet run"
    return Problem(503, "outcome-unknown", detail, headers=_retry_after(), reason=reason)


def results_full() -> Problem:
    """Definite: nothing was accepted, and no Idempotency-Key was used."""
    detail = "the task was not accepted: the store of results is full; send it again after Retry-After"
    return Problem(503, "results-full", detail, headers=_retry_after(), reason="results-full")


def results_unavailable() -> Problem:
    """Redis does not answer."""
    detail = "the store of results does not answer; accepted tasks are safe, ask again after Retry-After"
    return Problem(503, "results-unavailable", detail, headers=_retry_after())


def too_many_waiting() -> Problem:
    """The process has reached its limit of waiting clients."""
    detail = "no more clients can wait for tasks: ask again after Retry-After, or without ?wait="
    return Problem(503, "too-many-waiting", detail, headers=_retry_after())


def not_ready(away: list[str]) -> Problem:
    """The process must not receive requests now."""
    return Problem(503, "not-ready", f"not ready: {', '.join(away)}", reasons=away)


def unhealthy(servers: Mapping[str, Any]) -> Problem:
    """The broker or Redis does not answer, or Redis is full. `servers` has the state of each: up, down or full."""
    down = [name for name, state in servers.items() if state == "down"]
    detail = f"does not answer: {', '.join(down)}" if down else "Redis is full: posts are refused"
    return Problem(503, "unhealthy", detail, headers=_retry_after(), **servers)


def defect() -> Problem:
    """An unexpected exception: a defect of Sluice."""
    return Problem(500, "internal", "a defect of this service; its log has the request id")


def _retry_after() -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_S)}


def document(problem: Problem) -> dict[str, Any]:
    """The problem document (RFC 9457) of an error."""
    return {
        "type": f"urn:sluice:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": clean(problem.detail, TEXT_MAX_CHARS),
        "request_id": logs.request_id.get(),
        **clean_all(problem.members, TEXT_MAX_CHARS),
    }


def response(problem: Problem) -> JSONResponse:
    """The HTTP response for a problem."""
    metrics.PROBLEMS.labels(problem.kind).inc()
    return JSONResponse(document(problem), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem document."""

    async def on_problem(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, Problem)  # noqa: S101 - registered for it alone
        await exc.hold()
        return response(exc)

    async def on_http(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HTTPException)  # noqa: S101 - registered for it alone
        kind = HTTPStatus(exc.status_code).phrase.lower().replace(" ", "-")
        return response(Problem(exc.status_code, kind, str(exc.detail), headers=exc.headers))

    async def on_parameter(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for it alone
        first = exc.errors()[0]
        return response(malformed(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_parameter)
