"""Malformed requests get a 4xx answer, and the API keeps running."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.harness.system import Api, System

TASK = b'{"task": "first", "name": "%s"}'
JSON = "application/json"


@pytest.fixture(scope="module")
def api(shared: System) -> Iterator[Api]:
    api = shared.api(BODY_MAX_BYTES="4096")
    pid = api.child.pid
    yield api
    assert api.child.pid == pid
    assert api.child.alive
    assert api.get("/healthz") == 200
    assert "unhandled" not in shared.logs()


@pytest.mark.parametrize("path", ["/tasks", "/tasks/batch"])
@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"[" * 4000, {413}),
        (b'{"task":' * 500, {413}),
        (b"[" * 150, {400}),
        (TASK % b"a\x00b", {400}),
        (b"\x00" * 100, {400}),
        (TASK % rb"\ud800", {400}),
        (TASK % rb"\udc00\ud800", {400}),
        (TASK % "Łódź".encode("utf-16"), {400}),
        ((TASK % b"a").decode().encode("utf-16"), {400}),
        ((TASK % b"a").decode().encode("utf-32"), {400}),
        (TASK % b"\xe9", {400}),
        (TASK % b"\xc0\x80", {400}),
        (b"\xef\xbb\xbf" + TASK % b"a", {400}),
        (b'{"task": "first", "name": 1e400}', {400, 422}),
        (b'{"task": "first", "name": ' + b"9" * 4000 + b"}", {400, 422}),
        (b'{"task": "first", "name": NaN}', {400, 422}),
        (b'{"task": "first", "name": {"__proto__": 1}}', {422}),
        (b'"' + b"a" * 4095, {400}),
        (b"a" * 4097, {413}),
    ],
)
def test_unreadable_body_gets_a_4xx_problem(api: Api, path: str, body: bytes, statuses: set[int]) -> None:
    for wrapped in (body,) if path == "/tasks" else (body, b'{"tasks": [' + body + b"]}"):
        response = api.client.post(path, content=wrapped, headers={"Content-Type": JSON})
        expected = statuses if wrapped is body or len(wrapped) <= 4096 else {413}
        assert response.status_code in expected | ({422} if path == "/tasks/batch" else set()), response.text
        assert response.json()["status"] == response.status_code


def test_escaped_control_character_in_a_name_is_invalid(api: Api) -> None:
    for escaped in (rb"\u0000", rb"\u001b[2J", rb"\u007f"):
        response = api.client.post("/tasks", content=TASK % escaped, headers={"Content-Type": JSON})
        assert response.status_code == 422


def test_nesting_of_10000_levels_is_refused_as_too_complex(shared: System) -> None:
    api = shared.api()
    for opened in (b"[", b'{"a":', b'{"task": "first", "name": ['):
        response = api.client.post("/tasks", content=opened * 10_000, headers={"Content-Type": JSON})
        assert (response.status_code, response.json()["type"]) == (413, "urn:sluice:problem:too-complex")
    assert api.get("/healthz") == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/json, text/plain", "application/jsonp", "application/json; charset=latin-1"],
)
def test_content_type_other_than_utf_8_json_gets_415(api: Api, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/tasks", "/tasks/batch"):
        assert api.client.post(path, content=TASK % b"a", headers=headers).status_code == 415


@pytest.mark.parametrize("content_type", [JSON, "application/JSON;charset=UTF-8", 'application/json; charset="utf-8"'])
def test_utf_8_json_content_type_is_accepted(api: Api, content_type: str) -> None:
    response = api.client.post("/tasks", content=TASK % b"a", headers={"Content-Type": content_type})
    assert response.status_code == 202


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Idempotency-Key"])
def test_header_sent_twice_is_malformed(api: Api, shared: System, name: str) -> None:
    """It would be ambiguous: a proxy may use the other value than the API."""
    values = {"Authorization": f"Bearer {shared.key}", "Content-Type": JSON, "Idempotency-Key": "twice"}
    headers = [*values.items(), (name, values[name])]
    response = httpx.post(f"{api.url}/tasks", content=TASK % b"a", headers=headers)
    assert (response.status_code, response.json()["type"]) == (400, "urn:sluice:problem:malformed")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /tasks/\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /tasks/x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_bytes_that_are_not_http_get_a_4xx_or_a_closed_connection(api: Api, request_: bytes) -> None:
    address = (httpx.URL(api.url).host, httpx.URL(api.url).port or 80)
    with socket.create_connection(address, timeout=10) as connection:
        answer = b""
        try:
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except OSError:  # the API may answer and close before it has received all bytes
            pass
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "path", ["/tasks/%00", "/tasks/%ff", "/tasks/..%2f..%2fetc", f"/tasks/{'a' * 5000}", "/tasks/%"]
)
def test_malformed_id_in_the_path_gets_a_4xx(api: Api, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert api.client.request(method, path).status_code in {400, 404}


def test_surrogates_in_a_key_are_unauthenticated(api: Api) -> None:
    headers = httpx.Headers([(b"Authorization", b"Bearer \xed\xa0\x80\xff")])
    assert httpx.get(f"{api.url}/tasks/x", headers=headers).status_code == 401
