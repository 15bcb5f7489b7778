"""Batches: one outcome per input, in input order, also after a failure in the middle."""

import time
from typing import Any

import httpx
import pytest

from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


def sleeps(count: int, prefix: str = "batch") -> list[dict[str, Any]]:
    return [{"task": "sleep", "name": f"{prefix}-{number}"} for number in range(count)]


def statuses(response: httpx.Response) -> list[int]:
    return [outcome["status"] for outcome in response.json()["outcomes"]]


def ids(response: httpx.Response) -> list[str]:
    return [outcome["task_id"] for outcome in response.json()["outcomes"]]


def test_valid_and_invalid_inputs_get_their_outcomes_in_order(api: Api, shared: System) -> None:
    inputs = sleeps(4, "mixed")
    inputs[1] = {"task": "sleep"}
    inputs[2] = {"task": "nothing", "name": "a"}
    response = api.batch(inputs)
    assert response.status_code == 202
    assert statuses(response) == [202, 422, 422, 202]
    outcomes = response.json()["outcomes"]
    assert outcomes[1]["type"] == "urn:sluice:problem:invalid"
    assert outcomes[1]["errors"][0]["loc"] == ["sleep", "name"]
    shared.worker()
    for index in (0, 3):
        ended = api.ended(outcomes[index]["task_id"])
        assert (ended["task_status"], ended["task_result"]["name_task"]) == ("SUCCESS", f"mixed-{index}")


def test_batch_of_1000_inputs_gets_1000_ids_and_its_repetition_the_same_ids(api: Api) -> None:
    response = api.batch(sleeps(1000), "thousand")
    assert statuses(response) == [202] * 1000
    assert len(set(ids(response))) == 1000
    assert {api.status(task_id)["task_status"] for task_id in ids(response)[::100]} <= {"PENDING", "STARTED", "SUCCESS"}
    assert ids(api.batch(sleeps(1000), "thousand")) == ids(response)


@pytest.mark.parametrize("inputs", [[], sleeps(1001), [5], [{}], None, {}])
def test_malformed_batch_is_invalid(api: Api, inputs: Any) -> None:
    response = api.batch(inputs)
    assert (response.status_code, response.json()["type"]) == (422, "urn:sluice:problem:invalid")


def test_batch_of_only_invalid_inputs_is_refused(api: Api) -> None:
    response = api.batch([{"task": "sleep"}] * 3)
    assert response.status_code == 422
    assert statuses(response) == [422] * 3


def test_partly_refused_batch_is_completed_by_sending_it_again(system: System) -> None:
    system.define(max_length_messages=20)
    api = system.api()
    inputs = sleeps(150)
    first = api.batch(inputs, "k")
    assert first.status_code == 202
    refused = [n for n, status in enumerate(statuses(first)) if status == 503]
    accepted = {n: one["task_id"] for n, one in enumerate(first.json()["outcomes"]) if one["status"] == 202}
    assert len(refused) + len(accepted) == 150
    assert min(len(refused), len(accepted)) > 10
    assert {first.json()["outcomes"][n]["type"] for n in refused} == {"urn:sluice:problem:refused"}
    until(lambda: system.depth_messages(WORK_QUEUE) == len(accepted))
    system.define()
    second = complete(api, inputs, "k")
    assert {n: second[n] for n in accepted} == accepted
    until(lambda: system.depth_messages(WORK_QUEUE) == 150)  # accepted inputs were not published again
    system.worker(WORKER_CONCURRENCY="4")
    assert {api.ended(task_id)["task_status"] for task_id in second} == {"SUCCESS"}
    assert [system.effects(one["name"], "begun") for one in inputs] == [1] * 150


def test_repeated_batch_is_completed_by_a_replica_that_knows_more_tasks(system: System) -> None:
    """During a rolling update, replicas know different tasks. Inputs that stay invalid get no id."""
    older, newer = system.api("tests.harness.simple_tasks_app"), system.api()
    inputs = [{"task": "first", "name": "a"}, *sleeps(1), {"task": "nothing"}]
    first = older.batch(inputs, "k")
    assert statuses(first) == [202, 422, 422]
    second = newer.batch(inputs, "k")
    assert statuses(second) == [202, 202, 422]
    assert ids_accepted(second)[0] == ids_accepted(first)[0]
    until(lambda: system.depth_messages(WORK_QUEUE) == 2)
    third = older.batch(inputs, "k")
    assert ids_accepted(third) == ids_accepted(second) == ids_accepted(older.batch(inputs, "k"))
    assert newer.batch(inputs, "k").json()["outcomes"][:2] == second.json()["outcomes"][:2]
    assert system.depth_messages(WORK_QUEUE) == 2


def ids_accepted(response: httpx.Response) -> list[str]:
    return [outcome["task_id"] for outcome in response.json()["outcomes"] if outcome["status"] == 202]


def complete(api: Api, inputs: list[dict[str, Any]], key: str) -> list[str]:
    """Send a batch until all inputs are accepted; returns the ids."""

    def once() -> list[str]:
        response = api.batch(inputs, key)
        return ids(response) if response.status_code == 202 and set(statuses(response)) == {202} else []

    return until(once, what="a batch accepted whole")


@pytest.mark.thorough
def test_batch_of_a_process_killed_half_way_is_completed_by_another_process(system: System) -> None:
    api, doomed = system.api(), system.api(TEST_DIE="after 130")
    inputs = sleeps(200)
    with pytest.raises(httpx.TransportError):
        doomed.batch(inputs, "k")
    until(lambda: system.depth_messages(WORK_QUEUE) >= 30)  # input 130 was published after 30 confirms
    all_ids = complete(api, inputs, "k")
    system.worker(WORKER_CONCURRENCY="4")
    assert {api.ended(task_id)["task_status"] for task_id in all_ids} == {"SUCCESS"}
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert [system.effects(one["name"], "begun") for one in inputs] == [1] * 200


@pytest.mark.thorough
def test_whole_batch_is_refused_while_the_broker_is_down(system: System) -> None:
    api = system.api()
    system.servers.rabbitmq.stop()
    until(lambda: api.get("/healthz") == 503)
    response = api.batch(sleeps(150), "k")
    assert (response.status_code, response.json()["type"]) == (503, "urn:sluice:problem:refused")
    assert statuses(response) == [503] * 150
    assert int(response.headers["Retry-After"]) > 0


def test_batch_is_answered_at_its_deadline_if_the_broker_hangs(system: System) -> None:
    api = system.api(PUBLISH_DEADLINE_S="1", BROKER_HEARTBEAT_S="60")
    system.servers.rabbitmq.suspend()
    started_s = time.monotonic()
    response = api.batch(sleeps(1000), "k")
    assert time.monotonic() - started_s < 8  # ten chunks with one deadline each would take 10 s
    assert (response.status_code, response.json()["type"]) == (503, "urn:sluice:problem:outcome-unknown")
    assert {outcome["type"].rpartition(":")[2] for outcome in response.json()["outcomes"]} == {
        "outcome-unknown",
        "refused",
    }
    system.servers.rabbitmq.resume()
    assert len(set(complete(api, sleeps(1000), "k"))) == 1000
