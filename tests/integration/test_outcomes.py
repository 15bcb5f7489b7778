"""Each way in which a task can end without a result is one FAILURE with its type and message, in both pools."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.failing_functions import CALLS, CHANGES, ENDINGS
from tests.harness.servers import Servers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOL_PARAMETERS, POOLS


@pytest.fixture(scope="module", params=POOL_PARAMETERS)
def running(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[System, Api]]:
    with System(servers, tmp_path_factory.mktemp("system")) as system:
        api = system.api()
        system.recorder()
        system.worker(WORKER_POOL=request.param, WORKER_CONCURRENCY="2")
        yield system, api


@pytest.fixture(scope="module")
def ended(running: tuple[System, Api]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Id and answer of a task per kind of end; all tasks are posted at once."""
    _, api = running
    ids = {("end", how): api.accepted("end", how, how=how) for how in ENDINGS}
    ids |= {("call", how): api.accepted("call", f"call-{how}", how=how) for how in CALLS}
    return {" ".join(kind): (task_id, api.ended(task_id)) for kind, task_id in ids.items()}


@pytest.mark.parametrize("how", ENDINGS)
def test_each_kind_of_end_is_one_failure_with_its_type_and_message(
    running: tuple[System, Api], ended: dict[str, tuple[str, dict[str, Any]]], how: str
) -> None:
    system, _ = running
    task_id, end = ended[f"end {how}"]
    assert (end["task_status"], end["task_result"]["type"]) == ("FAILURE", ENDINGS[how].type)
    if ENDINGS[how].message is not None:
        assert end["task_result"]["message"] == ENDINGS[how].message
    assert system.effects(how, "begun") == 1
    (line,) = until(lambda: _failed(system, task_id))
    assert (line["type"], bool(line["request_id"])) == (ENDINGS[how].type, True)
    assert "Traceback (most recent call last)" in line["exception"]


OURS = ("POST /tasks", "GET /tasks", "DELETE /tasks", "retry_on", "raise an error")


@pytest.mark.parametrize("how", CALLS)
def test_call_of_celerys_api_fails_and_names_the_alternative(
    ended: dict[str, tuple[str, dict[str, Any]]], how: str
) -> None:
    _, end = ended[f"call {how}"]
    assert (end["task_status"], end["task_result"]["type"]) == ("FAILURE", "CeleryCallRefused")
    assert end["task_result"]["message"].startswith("Celery's ")
    assert any(ours in end["task_result"]["message"] for ours in OURS)


@pytest.mark.usefixtures("ended")
def test_ended_tasks_leave_no_messages_and_no_keys_of_celery(running: tuple[System, Api]) -> None:
    system, api = running
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert [system.depth_messages(queue) for queue in ("celery", "dead", "dead.parked")] == [0, 0, 0]
    assert not list(system.redis.scan_iter("*celery*"))


def test_input_that_is_invalid_only_in_the_worker_is_not_understood(running: tuple[System, Api]) -> None:
    """The test model's validator is impure; to the worker it looks like an API of another version."""
    _, api = running
    end = api.ended(api.accepted("validated"))
    assert (end["task_status"], end["task_result"]["type"]) == ("FAILURE", "NotUnderstood")
    assert "ValidationError" in end["task_result"]["message"]
    assert "not in a worker" in end["task_result"]["message"]


@POOLS
@pytest.mark.parametrize("defect", ["begin", "end"])
def test_error_in_the_backend_is_a_failure_and_is_parked(system: System, pool: str, defect: str) -> None:
    api = system.api()
    system.recorder()
    system.worker("tests.harness.faulty_backend_worker", DEFECT=defect, WORKER_POOL=pool)
    end = api.ended(api.accepted("sleep", "defective"))
    assert end["task_result"] == {"type": "ValueError", "message": "a defect of ours"}
    assert system.effects("defective", "done") == (defect == "end")
    until(lambda: system.depth_messages("dead.parked") == 1)
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)


@POOLS
def test_process_changed_by_a_task_still_records_this_task_and_runs_the_next(system: System, pool: str) -> None:
    api = system.api()
    system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY="1")
    for how in CHANGES:
        task_id = api.accepted("end", how, how=how)
        assert api.ended(task_id)["task_result"] == {"type": "ValueError", "message": "mine"}, how
        until(lambda task_id=task_id: _failed(system, task_id))  # type: ignore[misc]
        assert api.ended(api.accepted("brief"))["task_status"] == "SUCCESS", how


def test_sigalrm_of_a_task_is_not_reported_as_its_hard_limit(system: System) -> None:
    system.define(delivery_limit=1)
    api = system.api()
    system.recorder()
    system.worker()
    end = api.ended(api.accepted("end", "alarm", how="alarm"))
    assert end["task_result"]["type"] == "DeliveryLimitExceeded"
    assert system.effects("alarm", "begun") == 2


@pytest.fixture(scope="module")
def prefork(shared: System) -> Api:
    """An API, a recorder and a worker with one pool process, which enforces limits and cancellations."""
    shared.recorder()
    shared.worker()
    return shared.api()


def test_error_whose_text_never_returns_ends_at_the_hard_limit(prefork: Api) -> None:
    assert prefork.ended(prefork.accepted("unread"))["task_result"]["type"] == "HardTimeLimitExceeded"


def test_soft_limit_is_a_failure_of_its_own_type(prefork: Api) -> None:
    end = prefork.ended(prefork.accepted("limited", "limited"))
    assert (end["task_status"], end["task_result"]["type"]) == ("FAILURE", "SoftTimeLimitExceeded")


@pytest.mark.parametrize("how", ["caught", "group", "cleanup"])
def test_cancellation_is_distinguished_from_a_raised_cancelled(shared: System, prefork: Api, how: str) -> None:
    name = f"cancelled-{how}"
    task_id = prefork.accepted("cancelled", name, how=how)
    until(lambda: shared.effects(name, "begun") == 1)
    assert prefork.client.delete(f"/tasks/{task_id}").status_code == 202
    assert prefork.ended(task_id)["task_status"] == "REVOKED"
    by_hand = prefork.ended(prefork.accepted("end", "by-hand", how="cancelled"))
    assert by_hand["task_result"]["type"] == "Cancelled"


def _failed(system: System, task_id: str) -> list[dict[str, Any]]:
    return [line for line in system.log_lines() if line.get("task_id") == task_id and line["message"] == "failed"]
