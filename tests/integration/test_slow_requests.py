"""Slow request heads, slow bodies, idle connections and too many event streams are ended or refused."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from apps.api import http
from tests.harness.short_limits_api import BODY_S, HEAD_S, IDLE_S
from tests.harness.system import Api, System, until

LATE_S = 5
BODY = b'{"task": "first", "name": "abc"}'


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api("tests.harness.short_limits_api")


def head(api: Api, length: int = len(BODY)) -> bytes:
    key = api.client.headers["Authorization"]
    lines = ["POST /tasks HTTP/1.1", "Host: a", f"Authorization: {key}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


@contextmanager
def connection(api: Api) -> Iterator[socket.socket]:
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        yield client


def trickle(client: socket.socket, data: bytes, limit_s: float) -> tuple[bytes, float]:
    """Send ten bytes per second until the server answers; returns the whole answer and the duration (s)."""
    started_s = time.monotonic()
    client.settimeout(0.1)
    for byte in data:
        client.sendall(bytes([byte]))
        try:
            answer = client.recv(4096)
        except TimeoutError:
            assert time.monotonic() - started_s < limit_s + LATE_S
            continue
        client.settimeout(60)
        while more := client.recv(4096):
            answer += more
        return answer, time.monotonic() - started_s
    raise AssertionError("the server did not answer before the end of the data")


def test_slow_head_gets_408_after_its_time_limit(api: Api) -> None:
    with connection(api) as client:
        answer, took_s = trickle(client, head(api) + b"x" * 1000, HEAD_S)
    assert took_s >= HEAD_S - 0.2
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "urn:sluice:problem:too-slow"


def test_slow_body_gets_408_after_its_time_limit(api: Api) -> None:
    with connection(api) as client:
        client.sendall(head(api, 1000))
        answer, took_s = trickle(client, b"x" * 1000, BODY_S)
    assert took_s >= BODY_S - 0.2
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_connection_without_a_request_is_closed_after_the_idle_timeout(api: Api) -> None:
    with connection(api) as client:
        started_s = time.monotonic()
        assert client.recv(1) == b""
    assert IDLE_S - 0.2 <= time.monotonic() - started_s < IDLE_S + LATE_S


def test_idle_timeout_restarts_with_each_answer(api: Api) -> None:
    with connection(api) as client:
        for _ in range(3):
            answered_s = post_after(client, head(api) + BODY, 0.8 * IDLE_S)
        client.settimeout(60)
        assert client.recv(1) == b""
    assert IDLE_S - 0.2 <= time.monotonic() - answered_s < IDLE_S + LATE_S


def post_after(client: socket.socket, request: bytes, pause_s: float) -> float:
    """Wait on the open connection, then post; returns the time of the answer."""
    client.settimeout(pause_s)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(60)
    client.sendall(request)
    assert client.recv(4096).startswith(b"HTTP/1.1 202 ")
    return time.monotonic()


def test_connection_with_a_refused_body_is_closed_after_the_time_limit(api: Api) -> None:
    with connection(api) as client:
        client.sendall(head(api, 2**30))
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        client.settimeout(BODY_S + LATE_S)
        while client.recv(4096):
            pass


def test_time_limit_applies_to_each_request_of_a_connection(api: Api) -> None:
    """All requests together take longer than the limit of one; each is measured from its own first byte."""
    ended_s = time.monotonic() + 2 * BODY_S
    with connection(api) as client:
        while time.monotonic() < ended_s:
            for piece in (head(api)[:20], head(api)[20:] + BODY[:5]):
                client.sendall(piece)
                client.settimeout(0.3)  # the pause between two pieces
                with pytest.raises(TimeoutError):
                    client.recv(4096)
            client.sendall(BODY[5:])
            client.settimeout(60)
            assert client.recv(4096).startswith(b"HTTP/1.1 202 ")


def test_long_poll_is_not_a_slow_request(api: Api) -> None:
    task_id = api.accepted("first")
    started_s = time.monotonic()
    assert api.status(task_id, wait_s=BODY_S + 1)["task_status"] == "PENDING"
    assert time.monotonic() - started_s > BODY_S


def test_default_time_limits_are_those_of_the_documents() -> None:
    assert (http.HEAD_S, http.BODY_S) == (10, 30)


def test_event_streams_are_limited_per_client_and_in_total(system: System) -> None:
    theirs = "another-client-of-this-api"
    keys = f"tests:{system.key},other:{theirs}"
    api = system.api(STREAMS_PER_CLIENT_MAX="2", STREAMS_MAX="3", API_KEYS=keys)
    own = {"Authorization": f"Bearer {theirs}"}
    task_id = api.accepted("sleep")
    made = api.client.post("/tasks", json={"task": "sleep", "name": "a"}, headers=own)
    other_id = made.json()["task_id"]
    with ExitStack() as streams:
        for _ in range(2):
            assert opened(streams, api, task_id).status_code == 200
        refused = api.client.get(f"/tasks/{task_id}/events")
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:sluice:problem:too-many-streams")
        assert int(refused.headers["Retry-After"]) > 0
        assert opened(streams, api, other_id, own).status_code == 200
        full = api.client.get(f"/tasks/{other_id}/events", headers=own)
        assert (full.status_code, full.json()["type"]) == (503, "urn:sluice:problem:streams-full")
        assert api.metric("sluice_event_streams") == 3
        assert api.client.head(f"/tasks/{task_id}").status_code == 200
    until(lambda: api.metric("sluice_event_streams") == 0)
    for _ in range(5):  # a HEAD must not occupy a stream
        assert api.client.head(f"/tasks/{task_id}/events").status_code == 200
    with ExitStack() as streams:
        assert opened(streams, api, task_id).status_code == 200


def opened(streams: ExitStack, api: Api, task_id: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return streams.enter_context(api.client.stream("GET", f"/tasks/{task_id}/events", headers=headers))


def test_stream_ends_after_its_maximum_duration_and_can_be_resumed(system: System) -> None:
    api = system.api(STREAM_MAX_S="1")
    task_id = api.accepted("held", "long")
    started_s = time.monotonic()
    assert not [line for line in api.client.get(f"/tasks/{task_id}/events").iter_lines() if line.startswith("data")]
    assert 1 <= time.monotonic() - started_s < 1 + LATE_S
    system.worker()
    until(lambda: api.status(task_id)["task_status"] == "STARTED")
    assert "STARTED" in api.client.get(f"/tasks/{task_id}/events").text
    system.release("long")
    api.ended(task_id)
    last = api.client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": "STARTED"}).text
    assert "SUCCESS" in last
