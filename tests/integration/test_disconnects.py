"""Clients that disconnect at any time: the API logs no error, and keeps no state for them."""

import array
import fcntl
import socket
import struct
import termios
from collections.abc import Iterator
from secrets import token_hex

import httpx
import psutil
import pytest

from tests.harness.system import Api, System, until
from tests.integration.test_large_results import LARGE_BYTES, stored

BODY = b'{"task": "first", "name": "abc"}'
POST = b"POST %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Type: %b\r\n%b\r\n%b"
GET = b"GET %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n"


@pytest.fixture(scope="module")
def api(shared: System) -> Iterator[Api]:
    api = shared.api()
    yield api
    assert api.child.alive


@pytest.fixture(params=["FIN", "RST"])
def leaves(request: pytest.FixtureRequest, api: Api, shared: System) -> Iterator[socket.socket]:
    """A connection that ends with FIN or RST after the test; then the log must contain no error."""
    address = httpx.URL(api.url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        if request.param == "RST":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield connection
    until(lambda: _connections(api) == 0, 10)
    until(lambda: api.metric("sluice_long_polls") == 0, 10)
    assert api.get("/readyz") == 200
    errors = [line for line in shared.log_lines() if line["level"] in {"ERROR", "CRITICAL"} or "exception" in line]
    assert [line.get("exception") or line["message"] for line in errors] == []
    assert "Traceback" not in shared.logs()


def _post(key: str, path: bytes, sent: bytes, head: bytes, type_: bytes = b"application/json") -> bytes:
    return POST % (path, key.encode(), type_, head, sent)


def _named(request_id: str) -> bytes:
    """A header with the request id, by which a test finds the request's line in the log."""
    return b"X-Request-ID: %b\r\n" % request_id.encode()


HALF = BODY[:10]
CHUNK = b"%x\r\n%b\r\n" % (len(HALF), HALF)
LENGTH, CHUNKED = b"Content-Length: 33\r\n", b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("path", [b"/tasks", b"/tasks/batch"])
@pytest.mark.parametrize(
    ("head", "sent", "type_"),
    [
        (LENGTH, b"", b"application/json"),
        (LENGTH, HALF, b"application/json"),
        (LENGTH, HALF, b"application/json; charset=utf-8"),  # takes FastAPI's route
        (LENGTH + b"Expect: 100-continue\r\n", b"", b"application/json; charset=utf-8"),
        (CHUNKED, b"", b"application/json"),
        (CHUNKED, CHUNK, b"application/json"),
        (CHUNKED, CHUNK + CHUNK[:5], b"application/json"),
    ],
)
def test_client_disconnects_while_it_sends_the_body(  # noqa: PLR0913, PLR0917 - fixtures and parameters
    leaves: socket.socket, shared: System, path: bytes, head: bytes, sent: bytes, type_: bytes
) -> None:
    request_id = token_hex(8)
    leaves.sendall(_post(shared.key, path, sent, head + _named(request_id), type_))
    until(lambda: _received(leaves))
    leaves.close()
    shared.requests(path.decode(), request_id=request_id)


@pytest.mark.parametrize("sent", [b"", b"POST /ta", b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-"])
def test_client_disconnects_while_it_sends_the_head(leaves: socket.socket, sent: bytes) -> None:
    leaves.sendall(sent)


@pytest.mark.parametrize("query", ["?wait=20", "?wait=20&wait=20", "/events"])
def test_client_disconnects_while_it_waits(leaves: socket.socket, api: Api, shared: System, query: str) -> None:
    task_id = api.accepted("sleep", seconds=60)
    leaves.sendall(GET % (f"/tasks/{task_id}{query}".encode(), shared.key.encode()))
    until(lambda: api.metric("sluice_long_polls") == 1)


@pytest.mark.parametrize("query", ["", "?wait=20", "?wait=0&wait=0", "/events"])
def test_client_disconnects_while_it_receives_a_large_answer(leaves: socket.socket, shared: System, query: str) -> None:
    task_id = stored(shared, LARGE_BYTES)
    leaves.sendall(GET % (f"/tasks/{task_id}{query}".encode(), shared.key.encode()))
    assert leaves.recv(1000)


def test_client_disconnects_before_it_reads_the_answer(leaves: socket.socket, shared: System) -> None:
    request_id = token_hex(8)
    leaves.sendall(_post(shared.key, b"/tasks", BODY, LENGTH + _named(request_id)) * 20)
    leaves.close()
    shared.requests("/tasks", request_id=request_id)


def _connections(api: Api) -> int:
    """Count the connections to the API, without those of the tests' own client."""
    address = httpx.URL(api.url)
    here = psutil.Process(api.child.pid).net_connections("tcp")
    ours = {
        each.laddr.port
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == address.port
    }
    return sum(each.laddr.port == address.port and bool(each.raddr) and each.raddr.port not in ours for each in here)


def _received(connection: socket.socket) -> bool:
    """Return whether the peer has received everything: the kernel's send buffer is empty (Linux: SIOCOUTQ)."""
    left = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, left)
    return left[0] == 0
