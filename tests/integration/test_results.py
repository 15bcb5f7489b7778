"""Any text of a task can be read; a result that is too large is a FAILURE of its task after one attempt."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from pydantic_core import from_json

from apps import logs
from apps.contract import states
from apps.contract.ids import TaskIds
from tests.harness.records import Records
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOL_PARAMETERS

MIB = 1024 * 1024
TEXT = r"caf\udce9\x00.mp4"


@pytest.fixture(scope="module", params=POOL_PARAMETERS)
def worker(request: pytest.FixtureRequest, shared: System) -> Iterator[None]:
    child = shared.worker(WORKER_POOL=request.param, RESULT_MAX_BYTES="4096", FAILURE_MESSAGE_MAX="500")
    yield
    child.kill()


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("where", "state", "told"),
    [
        ("message", "FAILURE", {"type": "ValueError", "message": TEXT}),
        ("type", "FAILURE", {"type": r"Odd\x1bx", "message": "said"}),
        ("result", "SUCCESS", "caf\\udce9\x00.mp4"),
        ("key", "SUCCESS", {"caf\\udce9\x00.mp4": 1}),
        ("bytes", "SUCCESS", r"caf\xe9"),
        ("log", "SUCCESS", None),
    ],
)
def test_any_text_of_a_task_is_readable(api: Api, where: str, state: str, told: object) -> None:
    task_id = api.accepted("unreadable", where=where)
    found = api.ended(task_id)
    result = found["task_result"] if state == "FAILURE" else found["task_result"]["data"]
    assert (found["task_status"], result) == (state, told)
    assert api.status(task_id) == found
    events = api.client.get(f"/tasks/{task_id}/events").text
    assert json.loads(events.rpartition("data: ")[2]) == found


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("where", ["message", "type", "log"])
def test_long_texts_are_truncated_in_answers_and_logs(api: Api, shared: System, where: str) -> None:
    task_id = api.accepted("unreadable", where=where, times=200_000)
    found = api.ended(task_id)
    until(lambda: _has_line_of_end(shared, task_id))  # written after the client's answer
    if where != "log":
        assert len(found["task_result"]["message"]) <= 500
        assert len(found["task_result"]["type"]) <= states.TYPE_MAX_CHARS
    assert max(map(len, shared.logs().splitlines())) < logs.LINE_MAX_BYTES


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("size_bytes", "fits"), [(4096, True), (4097, False), (50 * MIB, False)])
def test_too_large_result_is_a_failure_after_one_attempt(api: Api, shared: System, size_bytes: int, fits: bool) -> None:
    name = uuid4().hex
    logged_bytes = len(shared.logs())
    task_id = api.accepted("excess", name, size_bytes=size_bytes)
    found = api.ended(task_id)
    until(lambda: _has_line_of_end(shared, task_id))
    if fits:
        assert (found["task_status"], len(found["task_result"]["data"]) > 3000) == ("SUCCESS", True)
        return
    assert (found["task_status"], found["task_result"]["type"]) == ("FAILURE", "ResultTooLarge")
    assert f"{size_bytes} bytes, and 4096" in found["task_result"]["message"]
    assert shared.effects(name, "begun") == 1
    assert len(shared.logs()) - logged_bytes < 4 * logs.LINE_MAX_BYTES


@pytest.mark.usefixtures("worker")
def test_spec_can_raise_the_limit_on_results(api: Api) -> None:
    found = api.ended(api.accepted("produce", size_bytes=10 * MIB))
    assert (found["task_status"], len(found["task_result"]["data"]) > 9 * MIB) == ("SUCCESS", True)
    found = api.ended(api.accepted("produce", size_bytes=10 * MIB + 1))
    assert found["task_result"]["type"] == "ResultTooLarge"


OLD: dict[str, tuple[str, str | bytes]] = {
    "lone surrogates": ("FAILURE", json.dumps({"type": "ValueError", "message": "caf\udce9.mp4"})),
    "a name": ("FAILURE", json.dumps({"type": "Odd\udce9", "message": ""})),
    "in a result": ("SUCCESS", json.dumps({"k\ud800": ["\udcff"]})),
    "constants": ("SUCCESS", '{"a": [NaN, Infinity, -Infinity]}'),
    "megabytes": ("FAILURE", json.dumps({"type": "ValueError", "message": "caf\udce9" * MIB})),
    "bytes that are not UTF-8": ("SUCCESS", b'{"a": "caf\xe9"}'),
}


@pytest.mark.parametrize("what", OLD)
@pytest.mark.parametrize("requeued", [False, True])
def test_record_of_an_older_version_is_readable(api: Api, shared: System, what: str, requeued: bool) -> None:
    state, meta = OLD[what]
    task_id = TaskIds(shared.task_id_key.encode()).new("tests")
    _store(shared.redis, task_id, state, meta)
    if requeued:
        shared.redis.hset(states.requeued_key(task_id), "requeued_as", "a-new-id")
    found = from_json(api.client.get(f"/tasks/{task_id}").content, allow_inf_nan=False)  # refuses lone surrogates
    assert found["task_status"] == state
    assert found == api.status(task_id, wait_s=1)
    assert isinstance(found["task_result"], dict)
    assert found["task_result"].get("requeued_as") == ("a-new-id" if requeued and state == "FAILURE" else None)
    assert api.client.get(f"/tasks/{task_id}/events").status_code == 200
    assert api.client.get(f"/tasks/{task_id}?wait=1&wait=1").status_code == 200  # takes FastAPI's route
    assert api.client.delete(f"/tasks/{task_id}").status_code == 409


def _has_line_of_end(system: System, task_id: str) -> bool:
    lines = (line for line in system.log_lines() if line.get("task_id") == task_id)
    return any(line["message"] in {"ended", "failed"} for line in lines)


def _store(client: redis.Redis, task_id: str, state: str, meta: str | bytes) -> None:
    assert Records(client).end(task_id, "p", state, meta) == "stored"
