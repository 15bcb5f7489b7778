"""No answer contains the Host of the request, and no answer is a redirect. Tested over raw sockets."""

import socket
from collections.abc import Iterator

import pytest

from tests.harness.system import Api, System

EVIL = "evil.example"
HOSTS = [
    f"Host: {EVIL}",
    f"Host: {EVIL}:8000",
    f"Host: user@{EVIL}",
    f"Host: localhost\r\nX-Forwarded-Host: {EVIL}\r\nX-Forwarded-Proto: https",
    f"Host: localhost\r\nForwarded: host={EVIL};proto=https",
    f"Host: localhost\r\nX-Original-URL: http://{EVIL}/\r\nX-Rewrite-URL: //{EVIL}",
    f'Host: {EVIL}"><script>',
]
TARGETS = [
    "/tasks", "/tasks/", "/tasks/batch", "/tasks/batch/", "/tasks/{id}", "/tasks/{id}/", "/tasks/{id}/events/",
    "/docs", "/docs/", "/docs/swagger-ui.css", "/openapi.json", "/livez", "/readyz/", "/healthz", "/metrics", "/",
    "//", "/..", "/docs/oauth2-redirect", "/static", "/tasks/..", "http://localhost/tasks/",
]  # fmt: skip


@pytest.fixture(scope="module")
def api(shared: System) -> Iterator[Api]:
    api = shared.api()
    yield api
    assert "unhandled" not in shared.logs()


def answer(api: Api, method: str, target: str, host: str, authorization: str) -> tuple[int, bytes]:
    """Return the status and the whole answer."""
    body = '{"task":"sleep","name":"a"}' if method in {"POST", "PUT"} else ""
    lines = [f"{method} {target} HTTP/1.1", host, authorization, "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    address = api.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall("\r\n".join([*filter(None, lines), "", body]).encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(received.split()[1]), received


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("authenticated", [True, False])
def test_no_answer_contains_the_host_or_redirects(api: Api, host: str, authenticated: bool) -> None:
    authorization = f"Authorization: {api.client.headers['Authorization']}" if authenticated else ""
    task_id = api.accepted("sleep")
    for target in TARGETS:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            status, received = answer(api, method, target.format(id=task_id), host, authorization)
            assert not 300 <= status < 400
            assert EVIL.encode() not in received
            head = received.split(b"\r\n\r\n")[0].lower()
            assert b"\nlocation: " not in head or b"\nlocation: /tasks/0" in head


@pytest.mark.parametrize(
    "line", [f"GET http://{EVIL}/tasks/ HTTP/1.1", f"CONNECT {EVIL}:443 HTTP/1.1", "GET /tasks/ HTTP/1.0"]
)
def test_no_answer_contains_the_host_of_the_request_target(api: Api, line: str) -> None:
    method, target, version = line.split()
    address = api.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall(f"{method} {target} {version}\r\nConnection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(received.split()[1]) in {400, 404, 405}
    assert EVIL.encode() not in received
