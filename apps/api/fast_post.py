"""`POST /tasks` in front of FastAPI, where it is an ordinary request.

FastAPI's routing, dependencies and response take longer than all that has to be done here: see docs/performance.md for
each way costs. So this takes the request that a client usually sends, and hands on whatever is out of the ordinary,
before it has read any of it: `routes.post_task` answers those, documents both, and says the same. What is added to the
FastAPI app (middleware, dependencies, its telemetry) does not see an ordinary post: add it here too.
"""

import re

from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.api import errors
from apps.api.body import parse_input
from apps.api.idempotency import FORM, KEY_MAX
from apps.api.publisher import CONFIRMED
from apps.api.request_log import RequestLog
from apps.api.routes import POLL_AFTER_S, problem_of

_KEY = re.compile(FORM)
_WANTED = frozenset({b"authorization", b"content-length", b"content-type", b"idempotency-key", b"transfer-encoding"})
_ORDINARY = "sluice.ordinary"  # what is found out on the way, in the scope
_HEADERS = [(b"content-type", b"application/json"), (b"retry-after", str(POLL_AFTER_S).encode())]


class FastPost:
    """Answers an ordinary `POST /tasks`, and hands everything else on to the app, whose state it shares."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._logged = RequestLog(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/tasks":
            ordinary = self._ordinary(scope)
            if ordinary is not None:
                scope[_ORDINARY] = ordinary
                await self._logged(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _ordinary(self, scope: Scope) -> tuple[str, str | None] | None:
        """Who asks, and under which key; None where anything is missing, wrong, or said twice."""
        given: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _WANTED:
                if name in given:
                    return None
                given[name] = value
        length = given.get(b"content-length", b"")
        if given.get(b"content-type") != b"application/json" or not length.isdigit() or b"transfer-encoding" in given:
            return None
        if int(length) > self._state.settings.body_max_bytes:
            return None
        key = given[b"idempotency-key"].decode("latin-1") if b"idempotency-key" in given else None
        if key is not None and (len(key) > KEY_MAX or not _KEY.fullmatch(key)):
            return None
        try:
            return self._state.clients.identify(given.get(b"authorization", b"").decode("latin-1")), key
        except errors.Problem:
            return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner, key = scope[_ORDINARY]
        body = await _read(receive)
        if body is None:  # the client has gone, and nothing was begun
            return
        try:
            task_id = await self._accept(owner, key, body)
        except errors.Problem as problem:
            await errors.response(problem)(scope, receive, send)
            return
        answer = b'{"task_id":"%b","task_status":"PENDING"}' % task_id
        length = b"%d" % len(answer)
        headers = [*_HEADERS, (b"content-length", length), (b"location", b"/tasks/" + task_id)]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _accept(self, owner: str, key: str | None, body: bytes) -> bytes:
        """The id of the task that the broker has. Raises the problems of a post."""
        payload = parse_input(self._state.inputs, body)
        (submitted,) = await self._state.submitter.submit(owner, [payload], key=key, body=body)
        if submitted.outcome is not CONFIRMED:
            raise problem_of(submitted.outcome)
        task_id: str = submitted.task_id
        return task_id.encode()


async def _read(receive: Receive) -> bytes | None:
    """The body, no longer than its Content-Length, which the server sees to."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
