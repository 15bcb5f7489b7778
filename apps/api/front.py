"""`POST /tasks` and `GET /tasks/{id}` in front of FastAPI, where they are ordinary requests.

FastAPI's routing, dependencies and response take longer than all that has to be done here: docs/performance.md says
what each way costs. So this takes the requests that a client usually sends, and hands on whatever is out of the
ordinary, before it has read any of it: `post_task` and `get_task` in `routes` answer those, document both, and say the
same. What is added to the FastAPI app (middleware, dependencies, its telemetry) does not see these: add it here too.
"""

import re
from typing import NamedTuple

from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import logs
from apps.api import errors
from apps.api.answer import tell
from apps.api.body import is_light, parse_input
from apps.api.following import follow
from apps.api.idempotency import FORM, KEY_MAX
from apps.api.publisher import CONFIRMED
from apps.api.request_log import RequestLog
from apps.api.routes import POLL_AFTER_S, problem_of

_KEY = re.compile(FORM)
_TASK = re.compile(r"/tasks/([0-9a-f-]+)")
_WAIT = re.compile(rb"(?:wait=([0-9]{1,6}(?:\.[0-9]{1,6})?))?")
_WANTED = frozenset({b"authorization", b"content-length", b"content-type", b"idempotency-key", b"transfer-encoding"})
_ORDINARY = "sluice.ordinary"  # what is found out on the way, in the scope
_JSON = (b"content-type", b"application/json")
_RETRY_AFTER = (b"retry-after", str(POLL_AFTER_S).encode())


class _Post(NamedTuple):
    owner: str
    key: str | None


class _Get(NamedTuple):
    task_id: str
    wait_s: float


class Front:
    """Answers what is ordinary, and hands everything else on to the app, whose state it shares."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state  # by item: as an attribute each would take ten times as long, and a post asks four times
        self._logged = RequestLog(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            ordinary = self._ordinary(scope)
            if ordinary is not None:
                scope[_ORDINARY] = ordinary
                await self._logged(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _ordinary(self, scope: Scope) -> _Post | _Get | None:
        """What is asked for; None where it is anything else, or anything is missing, wrong, or said twice."""
        method, path = scope["method"], scope["path"]
        if len(scope["raw_path"]) != len(path):  # percent-encoded, in part
            return None
        if method == "POST" and path == "/tasks":
            return self._post(_headers(scope))
        if method == "GET" and (task := _TASK.fullmatch(path)) and (wait := _WAIT.fullmatch(scope["query_string"])):
            return self._get(_headers(scope), task[1], float(wait[1] or 0))
        return None

    def _post(self, given: dict[bytes, bytes] | None) -> _Post | None:
        if given is None:
            return None
        length = given.get(b"content-length", b"")
        if given.get(b"content-type") != b"application/json" or not length.isdigit() or b"transfer-encoding" in given:
            return None
        if int(length) > self._state["settings"].body_max_bytes:
            return None
        key = given[b"idempotency-key"].decode("latin-1") if b"idempotency-key" in given else None
        if key is not None and (len(key) > KEY_MAX or not _KEY.fullmatch(key)):
            return None
        owner = self._owner(given)
        return None if owner is None else _Post(owner, key)

    def _get(self, given: dict[bytes, bytes] | None, task_id: str, wait_s: float) -> _Get | None:
        owner = None if given is None else self._owner(given)
        if owner is None or not self._state["ids"].owns(owner, task_id):
            return None
        return _Get(task_id, wait_s)

    def _owner(self, given: dict[bytes, bytes]) -> str | None:
        try:
            name: str = self._state["clients"].identify(given.get(b"authorization", b"").decode("latin-1"))
        except errors.Problem:
            return None
        return name

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope[_ORDINARY]
        try:
            if isinstance(asked, _Get):
                logs.task_id.set(asked.task_id)
                record = await follow(self._state, receive, asked.task_id, asked.wait_s)
                await tell(send, self._state, asked.task_id, record)
                return
            if asked.key is None:
                self._state["quotas"].require_one(asked.owner)
            body = await _read(receive)
            if body is None:  # the client has gone, and nothing was begun
                return
            task_id = await self._accept(asked, body)
            answer = b'{"task_id":"%b","task_status":"PENDING"}' % task_id
            await _send(send, 202, answer, _RETRY_AFTER, (b"location", b"/tasks/" + task_id))
        except errors.Problem as problem:
            await problem.hold()
            await errors.response(problem)(scope, receive, send)

    async def _accept(self, asked: _Post, body: bytes) -> bytes:
        """The id of the task that the broker has. Raises the problems of a post."""
        if is_light(body):
            payload = parse_input(self._state["inputs"], body)
        else:
            payload = await self._state["parser"].parse_input(asked.owner, body)
        (submitted,) = await self._state["submitter"].submit(asked.owner, [payload], key=asked.key, body=body)
        if submitted.outcome is not CONFIRMED:
            raise problem_of(submitted.outcome)
        task_id: str = submitted.task_id
        return task_id.encode()


def _headers(scope: Scope) -> dict[bytes, bytes] | None:
    """Those that are looked at; None where one was sent twice."""
    given: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _WANTED:
            if name in given:
                return None
            given[name] = value
    return given


async def _send(send: Send, code: int, answer: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(answer))
    await send({"type": "http.response.start", "status": code, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": answer})


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
