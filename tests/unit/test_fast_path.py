"""The fast path answers frequent requests, and passes all others to FastAPI unchanged."""

from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import Message, Receive, Scope, Send

from apps.api.app import create_app
from apps.api.body import DEPTH_MAX, parse_input, require_bounded
from apps.api.fast_path import PASSED, SKIPPED, FastPath
from apps.api.publisher import CONFIRMED
from apps.api.services import make_services
from apps.api.submission import Submitted
from apps.contract.ids import TaskIds
from apps.contract.message import Payload
from apps.contract.settings import ApiSettings, load
from apps.contract.states import Record
from apps.contract.tasks import input_adapter
from tests.harness.simple_tasks import TASKS

pytestmark = pytest.mark.anyio

KEY = "a-key-of-this-client"
ORDINARY = {
    b"authorization": f"Bearer {KEY}".encode(),
    b"content-length": b"31",
    b"content-type": b"application/json",
    b"host": b"localhost",
}
ENVIRONMENT = {
    "CELERY_BROKER_URL": "amqp://u:a-password@h/",
    "CELERY_RESULT_BACKEND": "redis://h",
    "TASK_ID_KEY": "k" * 16,
    "API_KEYS": f"me:{KEY}",
    "BODY_MAX_BYTES": "1024",
}
IDS = TaskIds(b"k" * 16)
BODY = b'{"task":"first","name":"abcd"}'


class Submitter:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, bytes]] = []

    async def submit_one(self, owner: str, _: object, *, key: str | None, body: bytes) -> Submitted:
        self.asked.append((owner, key, body))
        return Submitted("an-id", CONFIRMED)


class Store:
    async def read(self, _: str) -> Record:
        return Record("SUCCESS", '{"name_task":"ä","state":"done"}')


class Heavy:
    async def parse_input(self, _: str, body: bytes) -> Payload:
        require_bounded(body, DEPTH_MAX)
        return parse_input(input_adapter(TASKS), body)


class Exchange:
    """One request to a FastPath, and its result."""

    def __init__(self, *parts: bytes, more: bool = False) -> None:
        self.submitter = Submitter()
        self.handed_on = False
        self.sent: list[Message] = []
        self._incoming: list[Message] = [
            {"type": "http.request", "body": part, "more_body": more or number < len(parts)}
            for number, part in enumerate(parts, start=1)
        ]
        stand_ins: dict[str, Any] = {"parser": Heavy(), "submitter": self.submitter, "ids": IDS, "store": Store()}
        # its waiter is not connected: a waiting request reads the record immediately
        self._services = replace(make_services(load(ApiSettings, ENVIRONMENT), TASKS), **stand_ins)

    async def __call__(self, headers: list[tuple[bytes, bytes]], method: str = "POST", path: str = "/tasks") -> None:
        path, _, query = path.partition("?")
        asked = {"method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode()}
        scope = {"type": "http", **asked, "headers": headers}
        await FastPath(self._behind, self._services)(scope, self._receive, self._send)

    @property
    def unread(self) -> int:
        return len(self._incoming)

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        self.handed_on = True

    async def _receive(self) -> Message:
        return self._incoming.pop(0) if self._incoming else {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


def headers(**changed: bytes | None) -> list[tuple[bytes, bytes]]:
    named = {name.replace("_", "-").encode(): value for name, value in changed.items()}
    return [(name, value) for name, value in (ORDINARY | named).items() if value is not None]


async def test_ordinary_post_is_answered_by_the_fast_path() -> None:
    exchange = Exchange(BODY)
    await exchange(headers(idempotency_key=b"k1", x_request_id=b"mine"))
    start, body = exchange.sent
    assert exchange.submitter.asked == [("me", "k1", BODY)]
    assert body["body"] == b'{"task_id":"an-id","task_status":"PENDING"}'
    assert start["status"] == 202
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"43",
        b"location": b"/tasks/an-id",
        b"retry-after": b"1",
        b"x-request-id": b"mine",
    }
    assert not exchange.handed_on


async def test_content_type_with_utf_8_charset_is_ordinary() -> None:
    exchange = Exchange(BODY)
    await exchange(headers(content_type=b"Application/JSON;charset=UTF-8"))
    assert exchange.submitter.asked == [("me", None, BODY)]


def test_each_middleware_is_listed_as_passed_or_skipped() -> None:
    """A new middleware must be listed, so that its author decides whether the fast path passes it."""
    app = create_app(load(ApiSettings, ENVIRONMENT))
    added: set[Any] = {each.cls for each in app.user_middleware}
    assert added == {*PASSED, *SKIPPED}


async def test_body_in_several_parts_is_ordinary() -> None:
    exchange = Exchange(BODY[:10], b"", BODY[10:])
    await exchange(headers())
    assert exchange.submitter.asked == [("me", None, BODY)]


async def test_client_that_disconnects_during_its_body_posts_nothing() -> None:
    exchange = Exchange(BODY[:10], more=True)
    await exchange(headers())
    assert (exchange.submitter.asked, exchange.sent) == ([], [])


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"null", 422), (b'{"task": "none"}', 422), (b"[" * 100, 400), (b"[" * 1000, 413)]
)
async def test_invalid_body_gets_a_problem_with_its_request_id(body: bytes, status: int) -> None:
    exchange = Exchange(body)
    await exchange(headers(content_length=str(len(body)).encode(), x_request_id=b"mine"))
    assert exchange.submitter.asked == []
    assert exchange.sent[0]["status"] == status
    assert b'"request_id":"mine"' in exchange.sent[1]["body"]


@pytest.mark.parametrize(
    "unusual",
    [
        headers(authorization=None),
        headers(authorization=b"Bearer wrong"),
        headers(authorization=b"Bearer \xff"),
        headers(content_type=None),
        headers(content_type=b"application/json; charset=latin-1"),
        headers(content_type=b"text/plain"),
        headers(content_length=None),
        headers(transfer_encoding=b"chunked"),
        headers(content_length=b"1025"),
        headers(content_length=b"-1"),
        headers(content_length=b""),
        headers(idempotency_key=b""),
        headers(idempotency_key=b"a b"),
        headers(idempotency_key=b"a\n"),
        headers(idempotency_key=b"k" * 256),
        [*headers(), (b"authorization", b"Bearer other")],
        [*headers(idempotency_key=b"k"), (b"idempotency-key", b"k")],
        [*headers(), (b"content-type", b"application/json")],
    ],
)
async def test_unusual_post_is_passed_to_fastapi_with_its_body_unread(unusual: list[tuple[bytes, bytes]]) -> None:
    exchange = Exchange(BODY)
    await exchange(unusual)
    assert exchange.handed_on
    assert (exchange.unread, exchange.submitter.asked, exchange.sent) == (1, [], [])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/tasks"), ("POST", "/tasks/"), ("POST", "/tasks/batch"), ("POST", "/%74asks"), ("POST", "//tasks")],
)
async def test_other_call_is_passed_to_fastapi(method: str, path: str) -> None:
    exchange = Exchange(BODY)
    await exchange(headers(), method, path)
    assert (exchange.handed_on, exchange.unread) == (True, 1)


async def test_ordinary_get_is_answered_by_the_fast_path() -> None:
    for query in ("", "?wait=20", "?wait=0.5"):
        exchange = Exchange()
        task_id = IDS.new("me")
        await exchange(headers(content_length=None, content_type=None), "GET", f"/tasks/{task_id}{query}")
        start, body = exchange.sent
        expected = f'{{"task_id":"{task_id}","task_status":"SUCCESS","task_result":{{"name_task":"ä","state":"done"}}}}'
        assert (start["status"], body["body"].decode()) == (200, expected)
        assert not exchange.handed_on


@pytest.mark.parametrize(
    ("method", "query", "owner", "given"),
    [
        ("HEAD", "", "me", []),
        ("GET", "", "somebody else", []),
        ("GET", "", "me", [(b"authorization", b"Bearer wrong")]),
        ("GET", "?wait=1&wait=2", "me", []),
        ("GET", "?wait=1e3", "me", []),
        ("GET", "?wait=-1", "me", []),
        ("GET", "?wait=", "me", []),
        ("GET", "?more=1", "me", []),
        ("GET", "/events", "me", []),
        ("GET", "%2D", "me", []),
    ],
)
async def test_unusual_get_is_passed_to_fastapi(
    method: str, query: str, owner: str, given: list[tuple[bytes, bytes]]
) -> None:
    exchange = Exchange()
    await exchange(headers(content_length=None, content_type=None) + given, method, f"/tasks/{IDS.new(owner)}{query}")
    assert exchange.handed_on
    assert exchange.sent == []
