"""Life of a task: PENDING while it may still run, its result for RESULT_TTL_S, and then 410 forever."""

import time

import pytest

from apps.contract import states
from apps.contract.ids import TaskIds, created_at_s
from apps.contract.settings import ApiSettings
from apps.contract.topology import MESSAGE_TTL_S
from tests.harness.records import Records
from tests.harness.system import Api, System, until

# The API's defaults, which no setting of the tests changes.
LIFE_S = MESSAGE_TTL_S + int(ApiSettings.model_fields["result_ttl_s"].default)
RESULT_S = LIFE_S - MESSAGE_TTL_S
CALLS = [("GET", ""), ("GET", "?wait=1"), ("GET", "/events"), ("DELETE", "")]


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


def id_of_age(system: System, age_s: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an id that the API would have made `age_s` ago."""
    made_ns = time.time_ns() - int(age_s * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr("apps.contract.ids.time.time_ns", lambda: made_ns)
        task_id = TaskIds(system.task_id_key.encode()).new("tests")
    assert abs(time.time() - created_at_s(task_id) - age_s) < 10
    return task_id


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_task_older_than_every_record_is_gone(
    api: Api, shared: System, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    task_id = id_of_age(shared, LIFE_S + 30, monkeypatch)
    response = api.client.request(method, f"/tasks/{task_id}{path}")
    assert (response.status_code, response.json()["type"]) == (410, "urn:sluice:problem:expired")
    assert not shared.redis.exists(states.key(task_id))


@pytest.mark.parametrize("age_s", [RESULT_S + 60.0, LIFE_S - 30.0])
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_ended_task_whose_record_expired_is_gone_and_never_runs_again(  # noqa: PLR0913, PLR0917
    api: Api, shared: System, monkeypatch: pytest.MonkeyPatch, age_s: float, method: str, path: str
) -> None:
    task_id, records = id_of_age(shared, age_s, monkeypatch), Records(shared.redis)
    assert records.begin(task_id, "p") == "run"
    assert records.end(task_id, "p", "FAILURE") == "stored"
    shared.redis.delete(states.key(task_id))  # as if it had expired
    shared.redis.persist(states.record_keys(task_id).ended)
    response = api.client.request(method, f"/tasks/{task_id}{path}")
    assert (response.status_code, response.json()["type"]) == (410, "urn:sluice:problem:expired")
    assert records.begin(task_id, "another", old=True) == records.end(task_id, "another", "SUCCESS") == "final"


@pytest.mark.parametrize("age_s", [0.0, MESSAGE_TTL_S - 60.0, MESSAGE_TTL_S + 60.0, LIFE_S - 30.0])
def test_younger_task_without_a_record_is_pending(
    api: Api, shared: System, monkeypatch: pytest.MonkeyPatch, age_s: float
) -> None:
    assert api.status(id_of_age(shared, age_s, monkeypatch))["task_status"] == "PENDING"


def test_old_task_is_readable_until_its_record_expires(
    api: Api, shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = id_of_age(shared, LIFE_S + 3600, monkeypatch)
    assert Records(shared.redis).end(task_id, "p", "SUCCESS", "1") == "stored"
    assert api.status(task_id) == {"task_id": task_id, "task_status": "SUCCESS", "task_result": 1}
    shared.redis.pexpire(states.key(task_id), 1)
    until(lambda: api.get(f"/tasks/{task_id}") == 410)


def test_ended_markers_outlive_the_age_at_which_a_task_could_be_pending(system: System) -> None:
    """Otherwise a task that ended early would be PENDING again between the expiry of its record and its 410."""
    api = system.api()
    system.worker()
    system.recorder()
    for task in ("sleep", "fail"):
        task_id = api.accepted(task)
        api.ended(task_id)
        assert RESULT_S - 60 < system.redis.ttl(states.key(task_id)) <= RESULT_S
        assert system.redis.ttl(states.record_keys(task_id).ended) > LIFE_S + states.CLOCKS_S - 60
    waiting = api.accepted("sleep", seconds=60)
    until(lambda: api.status(waiting)["task_status"] == "STARTED")
    assert system.redis.ttl(states.key(waiting)) > LIFE_S - 60
    cancelled = api.accepted("sleep")
    assert api.client.delete(f"/tasks/{cancelled}").status_code == 200
    assert system.redis.ttl(states.record_keys(cancelled).earlier) > LIFE_S - 60


def test_task_that_exceeds_its_time_in_the_queue_is_a_failure_and_never_runs(system: System) -> None:
    system.define(message_ttl_s=1)
    api = system.api()
    system.recorder()
    ended = api.ended(api.accepted("sleep", "too late"))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "MessageExpired")
    assert "waited in its queue" in ended["task_result"]["message"]
    system.define()
    system.worker()
    assert api.ended(api.accepted("sleep", "in time"))["task_status"] == "SUCCESS"
    assert system.effects("too late", "begun") == 0
