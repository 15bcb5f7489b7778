"""Methods and paths follow RFC 9110, on the fast path and in FastAPI."""

import http.client
import json
import socket
from typing import Any, NamedTuple

import pytest

from ops.validate.agreement import api_routes
from tests.harness.system import Api, System

PROBLEM = "application/problem+json"
READ = {"GET", "HEAD", "OPTIONS"}
ALLOWED = {
    "/tasks": {"POST", "OPTIONS"},
    "/tasks/batch": {"POST", "OPTIONS"},
    "/tasks/{task_id}": READ | {"DELETE"},
}
ROUTES = sorted(api_routes())
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
INPUT = b'{"task": "first", "name": "abc"}'


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


@pytest.fixture(scope="module")
def task_id(api: Api) -> str:
    return api.accepted("first")


def send(api: Api, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """Send a request with exactly this target, a key, and the headers of an ordinary post."""
    connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=20)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    given = {"Host": "localhost", "Authorization": api.client.headers["Authorization"]}
    if body:
        given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    for name, value in (given | headers).items():
        connection.putheader(name, value)
    connection.endheaders(body or None)
    response = connection.getresponse()
    answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    connection.close()
    return answer


def test_list_of_routes_contains_the_main_routes() -> None:
    assert {*ALLOWED, "/tasks/{task_id}/events", "/docs", "/openapi.json", "/livez"} <= set(ROUTES)


@pytest.mark.parametrize(
    ("route", "method"),
    [(route, method) for route in ROUTES for method in METHODS if method not in ALLOWED.get(route, READ)],
)
def test_other_methods_get_405_with_the_allowed_methods(api: Api, task_id: str, route: str, method: str) -> None:
    answer = send(api, method, route.format(task_id=task_id))
    assert (answer.status, answer.headers["allow"]) == (405, ", ".join(sorted(ALLOWED.get(route, READ))))
    assert answer.headers["content-type"] == PROBLEM
    if method != "HEAD":
        assert json.loads(answer.body)["type"] == "urn:sluice:problem:method-not-allowed"


@pytest.mark.parametrize("route", ROUTES)
def test_options_lists_the_methods_of_a_path(api: Api, task_id: str, route: str) -> None:
    answer = send(api, "OPTIONS", route.format(task_id=task_id))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["allow"] == ", ".join(sorted(ALLOWED.get(route, READ)))


def test_options_of_the_whole_server_lists_every_method(api: Api) -> None:
    answer = send(api, "OPTIONS", "*")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("route", [route for route in ROUTES if "GET" in ALLOWED.get(route, READ)])
def test_head_returns_the_headers_of_get_without_a_body(api: Api, task_id: str, route: str) -> None:
    """Event streams are included: HEAD does not wait for their end."""
    path = route.format(task_id=task_id)
    head = send(api, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    if "events" not in route:
        get = send(api, "GET", path)
        changing = {"date", "x-request-id"} | ({"content-length"} if route == "/metrics" else set())
        assert without(head.headers, changing) == without(get.headers, changing)


def test_connection_is_reusable_after_head(api: Api, task_id: str) -> None:
    connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=5)
    for path in (f"/tasks/{task_id}/events", "/tasks/none", "/livez"):
        connection.request("HEAD", path, headers={"Authorization": api.client.headers["Authorization"]})
        response = connection.getresponse()
        assert (response.status, response.read()) == (404 if path.endswith("none") else 200, b"")
    connection.close()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/tasks/"),
        ("POST", "/tasks//"),
        ("POST", "//tasks"),
        ("POST", "//evil.example/tasks"),
        ("POST", "//evil.example/tasks/"),
        ("POST", "/tasks/batch/"),
        ("POST", "/tasks%2Fbatch"),
        ("POST", "/tasks%2f"),
        ("POST", "/Tasks"),
        ("GET", "/tasks/{task_id}/"),
        ("GET", "/tasks//{task_id}"),
        ("GET", "//evil.example/tasks/{task_id}"),
        ("GET", "/tasks%2F{task_id}"),
        ("GET", "/tasks%2f{task_id}"),
        ("GET", "/tasks/{task_id}%2Fevents"),
        ("GET", "/tasks/{task_id}/events/"),
        ("DELETE", "/tasks/{task_id}/"),
        ("GET", "/docs/"),
        ("GET", "/docs/swagger-ui.css/"),
        ("GET", "/docs/redoc.standalone.js"),
        ("GET", "/redoc"),
        ("GET", "/livez/"),
        ("GET", "/"),
        ("GET", "//"),
        ("GET", "//evil.example/.."),
        ("GET", "/livez/../metrics"),
        ("OPTIONS", "/nothing"),
        ("OPTIONS", "/*"),
        ("GET", "*"),
        ("PUT", "/nothing"),
        ("POST", "http://evil.example/tasks/"),
    ],
)
def test_unknown_path_gets_404_and_no_redirect(api: Api, task_id: str, method: str, target: str) -> None:
    answer = send(api, method, target.format(task_id=task_id), INPUT if method == "POST" else b"")
    assert (answer.status, answer.headers["content-type"]) == (404, PROBLEM)
    assert json.loads(answer.body)["type"] == "urn:sluice:problem:not-found"
    assert "location" not in answer.headers


@pytest.mark.parametrize("target", ["/tasks", "http://any.example/tasks", "/%74asks"])
def test_post_accepts_every_form_of_its_target(api: Api, target: str) -> None:
    answer = send(api, "POST", target, INPUT)
    assert answer.status == 202
    assert answer.headers["location"].startswith("/tasks/0")


@pytest.mark.parametrize("target", ["/tasks/{task_id}", "http://any.example/tasks/{task_id}", "/%74asks/{task_id}"])
def test_get_accepts_every_form_of_its_target(api: Api, task_id: str, target: str) -> None:
    answer = send(api, "GET", target.format(task_id=task_id))
    assert (answer.status, json.loads(answer.body)["task_id"]) == (200, task_id)


POSTS = ("/tasks", "/tasks/", "//tasks", "/tasks%2F", "/%74asks", "/tasks?a=1", "/tasks/?a=1", "//evil.example/tasks")
GETS = ("/tasks/{task_id}", "/tasks/{task_id}/", "/tasks%2F{task_id}", "//tasks/{task_id}", "/%74asks/{task_id}")


@pytest.mark.parametrize("target", POSTS)
@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "HEAD", "OPTIONS"])
def test_fast_path_and_fastapi_answer_targets_of_posts_alike(api: Api, method: str, target: str) -> None:
    """The fast path leaves the second content type to FastAPI."""
    kinds = ("application/json", "application/json; charset=utf-8")
    ordinary, other = (send(api, method, target, INPUT, **{"Content-Type": kind}) for kind in kinds)
    assert comparable(ordinary) == comparable(other)


@pytest.mark.parametrize("target", GETS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_fast_path_and_fastapi_answer_targets_of_gets_alike(api: Api, task_id: str, method: str, target: str) -> None:
    """The fast path leaves a request with an unknown parameter to FastAPI."""
    path = target.format(task_id=task_id)
    ordinary, other = (send(api, method, f"{path}{query}") for query in ("", "?more=1"))
    assert comparable(ordinary) == comparable(other)


def comparable(answer: Answer) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the parts that must be equal in two answers to the same request."""
    headers = without(answer.headers, {"date", "x-request-id", "location"})
    return answer.status, headers, without(json.loads(answer.body or b"{}"), {"request_id", "task_id"})


def without(members: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


@pytest.mark.parametrize(
    "line",
    [b"FETCH /tasks HTTP/1.1", b"get /livez HTTP/1.1", b"GET livez HTTP/1.1", b"GET /livez HTTP/9.9", b"nonsense"],
)
def test_malformed_request_line_gets_a_problem_document(api: Api, line: bytes) -> None:
    """The HTTP parser also rejects unknown methods."""
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, response.headers["Content-Type"]) == (400, PROBLEM)
        assert json.loads(response.read())["type"] == "urn:sluice:problem:malformed"


UPGRADES = ("h2c", "websocket", "TLS/1.0")


@pytest.mark.parametrize("connection", ["Upgrade", "Upgrade, HTTP2-Settings", "upgrade, close"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrade_request_is_answered_over_http_1_1(api: Api, upgrade: str, connection: str) -> None:
    """Java's HttpClient asks for an upgrade to HTTP/2 with the first request of each connection."""
    headers = {"Upgrade": upgrade, "Connection": connection, "Sec-WebSocket-Version": "13"}
    assert send(api, "POST", "/tasks", INPUT, **headers).status == 202
    get = send(api, "GET", "/tasks/none/events", b"", **headers)
    assert (get.status, get.headers["content-type"]) == (404, PROBLEM)


def test_pipelined_and_split_upgrade_requests_are_answered(api: Api) -> None:
    head = b"POST /tasks HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nAuthorization: %b\r\n"
    head = head % api.client.headers["Authorization"].encode() + b"Content-Type: application/json\r\n"
    whole = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(INPUT), INPUT)
    chunked = b"%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(INPUT), INPUT)
    sent = whole + chunked + whole
    for size in (len(sent), 7):
        with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=10) as connection:
            for at in range(0, len(sent), size):
                connection.sendall(sent[at : at + size])
            answers = b""
            while answers.count(b"HTTP/1.1 202") < 3:
                answers += connection.recv(65536) or pytest.fail(f"closed after {answers!r}")
