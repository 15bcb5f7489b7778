"""`POST /tasks` and `GET /tasks/{id}` before FastAPI's routing, dependencies and responses.

FastAPI's part takes longer than the rest of a request: docs/performance.md has the costs of both ways. The fast path
handles the usual requests. All others, and those that break a rule, are forwarded to the FastAPI app before their body
is read: the routes call the same functions, and answer with the problem.

Middleware, dependencies and telemetry of the FastAPI app do not see these requests: add them here too.
"""

import re
from typing import NamedTuple

from pydantic import TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import logs
from apps.api import errors, request_headers
from apps.api.acceptance import accept, admit
from apps.api.answer import accepted, send_status
from apps.api.auth import require_own
from apps.api.methods import Methods
from apps.api.request_log import RequestLog
from apps.api.services import Services
from apps.api.task_events import follow

# Middleware of the app that the fast path skips: the fast path checks method and path itself.
SKIPPED = (Methods,)
# Middleware that the fast path also applies.
PASSED = (RequestLog,)

_TASK = re.compile(r"/tasks/([0-9a-f-]+)")
_WAIT = re.compile(rb"(?:wait=([0-9]{1,6}(?:\.[0-9]{1,6})?))?")
_WANTED = frozenset({b"authorization", b"content-length", b"content-type", b"idempotency-key", b"transfer-encoding"})
_KEY = TypeAdapter(request_headers.IdempotencyKey).validator
_ASKED = "sluice.asked"  # key of the parsed request in the scope


class _Post(NamedTuple):
    owner: str
    key: str | None


class _Get(NamedTuple):
    task_id: str
    wait_s: float


class FastPath:
    """Answers the usual requests, and forwards all others to the app."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self._logged = RequestLog(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = self._asked(scope)
            if asked is not None:
                scope[_ASKED] = asked
                await self._logged(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _asked(self, scope: Scope) -> _Post | _Get | None:
        """The parsed request if it is a usual one; None for others, and for requests that break a rule."""
        method, path = scope["method"], scope["path"]
        if len(scope["raw_path"]) != len(path):  # partly percent-encoded
            return None
        try:
            if method == "POST" and path == "/tasks":
                return self._post(_headers(scope))
            if method == "GET" and (task := _TASK.fullmatch(path)) and (wait := _WAIT.fullmatch(scope["query_string"])):
                return self._get(_headers(scope), task[1], float(wait[1] or 0))
        except (errors.Problem, ValueError):  # the route answers with the problem
            pass
        return None

    def _post(self, given: dict[bytes, str] | None) -> _Post | None:
        if given is None or b"transfer-encoding" in given or not given.get(b"content-length", "").isdecimal():
            return None
        request_headers.require_json(given.get(b"content-type"))
        request_headers.require_length(given[b"content-length"], self._services.settings.body_max_bytes)
        key = given.get(b"idempotency-key")
        if key is not None:
            _KEY.validate_python(key)
        return _Post(self._services.clients.identify(given.get(b"authorization")), key)

    def _get(self, given: dict[bytes, str] | None, task_id: str, wait_s: float) -> _Get | None:
        if given is None:
            return None
        require_own(self._services.ids, self._services.clients.identify(given.get(b"authorization")), task_id)
        return _Get(task_id, wait_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope[_ASKED]
        try:
            if isinstance(asked, _Get):
                logs.task_id.set(asked.task_id)
                record = await follow(self._services, receive, asked.task_id, asked.wait_s)
                await send_status(send, self._services, asked.task_id, record)
                return
            admit(self._services, asked.owner, asked.key)
            body = await _read(receive)
            if body is not None:
                await accepted(send, await accept(self._services, asked.owner, asked.key, body))
        except errors.Problem as problem:
            await problem.hold()
            await errors.response(problem)(scope, receive, send)


def _headers(scope: Scope) -> dict[bytes, str] | None:
    """The headers used here; None if one of them was sent more than once."""
    given: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _WANTED:
            if name in given:
                return None
            given[name] = value.decode("latin-1")
    return given


async def _read(receive: Receive) -> bytes | None:
    """The body, which the server limits to its Content-Length; None if the client has disconnected."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
