"""The HTTP interface: ids, authentication, problem documents, limits."""

import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System

PROBLEM = "application/problem+json"
UNKNOWN_ID = "01a2051b-73de-71e9-88bf-599005174f79-0123456789abcdef"


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api(BODY_MAX_BYTES="2048")


def test_accepted_post_returns_the_location_and_a_retry_after(api: Api) -> None:
    response = api.post("first")
    task_id = response.json()["task_id"]
    assert response.status_code == 202
    assert response.json() == {"task_id": task_id, "task_status": "PENDING"}
    assert response.headers["Location"] == f"/tasks/{task_id}"
    assert int(response.headers["Retry-After"]) > 0


def test_accepted_message_is_persistent_in_a_quorum_queue(api: Api, shared: System) -> None:
    api.accepted("first")
    place = f"/api/queues/{shared.vhost}/{WORK_QUEUE}"
    queue = shared.servers.rabbitmq.management(place)
    got = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    (message,) = shared.servers.rabbitmq.management(f"{place}/get", "POST", got)
    assert queue["type"] == "quorum"
    assert message["properties"]["delivery_mode"] == 2


def test_replica_distinguishes_an_id_of_another_replica_from_an_unknown_id(api: Api, shared: System) -> None:
    """The original answered PENDING for every id."""
    task_id = api.accepted("first")
    other = shared.api()
    assert other.status(task_id)["task_status"] == "PENDING"
    assert other.get(f"/tasks/{UNKNOWN_ID}") == 404


@pytest.mark.parametrize(
    "forge",
    [
        lambda task_id: task_id[:-1] + ("0" if task_id[-1] != "0" else "1"),
        lambda task_id: ("1" if task_id[0] != "1" else "2") + task_id[1:],
        lambda task_id: task_id[:36],
        lambda task_id: task_id.upper(),
        lambda task_id: task_id + "0",
        lambda _: "x",
        lambda _: "%00",
    ],
    ids=["tag", "time", "no tag", "upper case", "longer", "short", "NUL"],
)
def test_forged_id_is_unknown(api: Api, forge: Callable[[str], str]) -> None:
    response = api.client.get(f"/tasks/{forge(api.accepted('first'))}")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == PROBLEM


def test_task_of_another_client_is_unknown(shared: System, api: Api) -> None:
    theirs = secrets.token_urlsafe(24)
    other = shared.api(API_KEYS=f"tests:{shared.key},others:{theirs}")
    task_id = api.accepted("first")
    assert other.get(f"/tasks/{task_id}") == 200
    response = other.client.get(f"/tasks/{task_id}", headers={"Authorization": f"Bearer {theirs}"})
    assert response.status_code == 404


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", "Basic {key}", "{key}"])
def test_request_without_a_valid_key_gets_401(api: Api, shared: System, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.format(key=shared.key)}
    for method, path in (("POST", "/tasks"), ("GET", f"/tasks/{UNKNOWN_ID}")):
        response = httpx.request(method, api.url + path, headers=headers, json={"task": "first", "name": "a"})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"task": "first", "name": "\xff"}', 400),
        (b"[" * 150, 400),
        (b"[" * 2000, 413),
        (b"null", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"task": "nothing", "name": "a"}', 422),
        (b'{"task": "first"}', 422),
        (b'{"task": "first", "name": 1}', 422),
        (b'{"task": "first", "name": ""}', 422),
        (b'{"task": "first", "name": "a", "more": 1}', 422),
        (b'{"task": "first", "name": "' + b"a" * 256 + b'"}', 422),
        (b'{"task": "first", "name": "' + b"a" * 2048 + b'"}', 413),
    ],
)
def test_invalid_body_gets_its_problem_document(api: Api, body: bytes, status: int) -> None:
    response = api.client.post("/tasks", content=body, headers={"Content-Type": "application/json"})
    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["Content-Type"] == PROBLEM
    assert problem["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "body",
    [b'{"task": "first", "name": "abc"}', b"{", b"null", b'{"task": "first", "name": 1}', b"a" * 2049, b""],
    ids=["input", "not JSON", "null", "no input", "too large", "empty"],
)
def test_fast_path_and_fastapi_answer_a_post_alike(api: Api, body: bytes) -> None:
    """The fast path leaves the second content type to FastAPI."""
    kinds = ("application/json", "application/json; charset=utf-8")
    ordinary, other = (
        api.client.post("/tasks", content=body, headers={"Content-Type": kind, "X-Request-ID": "same"})
        for kind in kinds
    )
    assert ordinary.status_code == other.status_code
    assert _without_ids(ordinary) == _without_ids(other)


def test_fast_path_and_fastapi_answer_a_get_alike(api: Api) -> None:
    """The fast path leaves a request with an unknown parameter to FastAPI."""
    task_id = api.accepted("first")
    for wait in ("wait=0", "wait=0.1"):
        ordinary, other = (
            api.client.get(f"/tasks/{task_id}?{query}", headers={"X-Request-ID": "same"})
            for query in (wait, f"{wait}&more=1")
        )
        assert (ordinary.status_code, _without_ids(ordinary)) == (other.status_code, _without_ids(other))


def _without_ids(response: httpx.Response) -> tuple[dict[str, Any], dict[str, str]]:
    headers = {name: value for name, value in response.headers.items() if name not in {"date", "location"}}
    return response.json() | {"task_id": None}, headers


def test_trace_context_of_a_request_is_in_its_message(api: Api, shared: System) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"task": "first", "name": "traced"}
    response = api.client.post("/tasks", json=body, headers={"traceparent": trace})
    place = f"/api/queues/{shared.vhost}/{WORK_QUEUE}/get"
    got = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
    headers = [one["properties"]["headers"] for one in shared.servers.rabbitmq.management(place, "POST", got)]
    assert {one["id"]: one.get("traceparent") for one in headers}[response.json()["task_id"]] == trace


def test_validation_error_names_the_field_and_does_not_repeat_the_value(api: Api) -> None:
    response = api.client.post("/tasks", json={"task": "first", "name": 17171717})
    (error,) = response.json()["errors"]
    assert error["loc"] == ["first", "name"]
    assert "17171717" not in response.text


def test_chunked_body_above_the_limit_gets_413(api: Api) -> None:
    chunks = (b"a" * 1024 for _ in range(1000))
    response = api.client.post("/tasks", content=chunks, headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_other_types_are_refused(api: Api) -> None:
    response = api.client.post("/tasks", content=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert response.status_code == 415


@pytest.mark.parametrize("wait", ["-1", "x", "nan"])
def test_invalid_wait_parameter_is_malformed(api: Api, wait: str) -> None:
    response = api.client.get(f"/tasks/{api.accepted('first')}?wait={wait}")
    assert response.status_code == 400
    assert response.json()["type"] == "urn:sluice:problem:malformed"


def test_request_id_is_used_only_if_it_is_well_formed(api: Api) -> None:
    assert api.client.get("/livez", headers={"X-Request-ID": "a-1"}).headers["X-Request-ID"] == "a-1"
    for unfit in ("a b", 'a"b', "a" * 129):
        assert api.client.get("/livez", headers={"X-Request-ID": unfit}).headers["X-Request-ID"] != unfit


def test_openapi_document_is_served(api: Api) -> None:
    assert {"/tasks", "/tasks/{task_id}"} <= set(api.client.get("/openapi.json").json()["paths"])


def test_long_poll_returns_the_current_state_after_its_wait(api: Api) -> None:
    task_id = api.accepted("first")  # stays PENDING: this module has no worker
    started_s = time.monotonic()
    assert api.status(task_id, wait_s=1)["task_status"] == "PENDING"
    assert 1 <= time.monotonic() - started_s < 15  # less than the maximum wait of 25 s
