"""The broker stops, hangs or refuses messages: each post gets a correct answer in time, no accepted task is lost."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS, thorough

DEADLINE_S = 2.0


@pytest.mark.parametrize("away", ["stop", "suspend", *thorough("kill")])
def test_posts_are_refused_at_the_deadline_and_accepted_again_after_the_outage(
    system: System, away: str, record_property: Callable[[str, object], None]
) -> None:
    api = system.api(PUBLISH_DEADLINE_S=str(DEADLINE_S))
    getattr(system.servers.rabbitmq, away)()
    response = api.post("sleep")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    (line,) = system.requests("/tasks")
    assert line["ms"] < (DEADLINE_S + 2) * 1000
    assert api.get("/livez") == 200
    until(lambda: api.get("/healthz") == 503, 5)
    system.servers.rabbitmq.resume()
    if away != "suspend":
        system.servers.rabbitmq.start()
    healed_s = time.monotonic()
    until(lambda: api.post("sleep").status_code == 202, 30)
    record_property(f"seconds to the first accepted post after {away}", round(time.monotonic() - healed_s, 2))


def test_post_to_a_hanging_broker_gets_outcome_unknown(system: System) -> None:
    api = system.api(PUBLISH_DEADLINE_S=str(DEADLINE_S))
    system.servers.rabbitmq.suspend()
    problem = api.post("sleep").json()
    assert problem["type"] == "urn:sluice:problem:outcome-unknown"
    assert problem["reason"] == "deadline"


@pytest.mark.thorough
def test_worker_reconnects_to_a_restarted_broker(system: System) -> None:
    api = system.api()
    worker = system.worker()
    task_id = api.accepted("sleep", seconds=0)
    api.ended(task_id)
    system.servers.rabbitmq.stop()
    until(lambda: not _ready(worker.env["READINESS_FILE"]), 20)
    system.servers.rabbitmq.start()
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(api.accepted("sleep"))["task_status"] == "SUCCESS"
    assert worker.alive


def test_worker_has_no_exclusive_queue(system: System) -> None:
    """In a cluster, the worker's lost connection may still hold such a queue after a reconnect: error 405 and exit."""
    system.worker()
    queues = system.servers.rabbitmq.management(f"/api/queues/{system.vhost}")
    assert [queue["name"] for queue in queues if queue["exclusive"]] == []


@pytest.mark.thorough
@POOLS
def test_running_task_succeeds_although_the_broker_restarts(system: System, pool: str) -> None:
    api = system.api()
    worker = system.worker(WORKER_POOL=pool)
    task_id = api.accepted("sleep", "middle", seconds=4)
    until(lambda: system.effects("middle", "begun") == 1)
    system.servers.rabbitmq.kill()
    system.servers.rabbitmq.start()
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    assert worker.alive
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)


def test_full_queue_refuses_posts_and_keeps_all_accepted_tasks(system: System) -> None:
    system.define(max_length_messages=10)
    api = system.api()
    responses = [api.post("sleep") for _ in range(30)]
    accepted = sum(response.status_code == 202 for response in responses)
    refused = [response for response in responses if response.status_code == 503]
    assert accepted >= 10
    assert accepted + len(refused) == 30
    assert {response.json()["reason"] for response in refused} == {"queue-full"}
    assert all(int(response.headers["Retry-After"]) > 0 for response in refused)
    until(lambda: system.depth_messages(WORK_QUEUE) == accepted)
    assert api.metric("sluice_refused_total") == len(refused)


def test_unroutable_post_is_refused(system: System) -> None:
    api = system.api()
    system.servers.rabbitmq.management(f"/api/queues/{system.vhost}/{WORK_QUEUE}", "DELETE")
    response = api.post("sleep")
    assert response.status_code == 503
    assert response.json()["reason"] == "unroutable"
    assert int(response.headers["Retry-After"]) > 0


def test_delayed_retry_is_kept_while_the_work_queue_is_full(system: System) -> None:
    """A retry that leaves its delay queue while its work queue is full must wait there and not be dropped."""
    api = system.api()
    # Long: filling the queue takes seconds on a busy machine, and each delay is random between 0 and this value.
    worker = system.worker(RETRY_BACKOFF_S="16")
    # Enough tasks that at least one of them is still delayed when the queue is full.
    names = [f"retried-{number}" for number in range(24)]
    retried = [api.accepted("flaky", name, failures=1) for name in names]
    until(lambda: all(system.effects(name, "begun") for name in names))
    worker.kill()
    system.define(max_length_messages=3)
    fill = _fill(api)
    _pass(18)  # longer than the longest delay
    assert api.post("sleep").status_code == 503
    assert _delayed(system) > 0
    system.worker()
    for task_id in (*fill, *retried):
        assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: _delayed(system) == 0)


@POOLS
def test_refused_retry_is_a_failure_of_type_retry_refused(system: System, pool: str) -> None:
    """A retry is a publish: without its confirm, the task would stay STARTED forever."""
    api = system.api()
    system.recorder()
    system.worker(RETRY_BACKOFF_S="300", WORKER_POOL=pool)
    full = {"pattern": "^celery_delayed_", "apply-to": "queues", "definition": {"max-length": 0}, "priority": 9}
    system.servers.rabbitmq.management(f"/api/policies/{system.vhost}/full", "PUT", full)
    names = (f"refused-{number}" for number in itertools.count())
    # A policy takes effect after some time. Until then retries are delayed, and the test ignores these tasks.

    def failed() -> dict[str, Any] | None:
        status = api.status(api.accepted("flaky", next(names), failures=1), wait_s=3)
        return status["task_result"] if status["task_status"] == "FAILURE" else None

    failure = until(failed)
    assert failure
    assert failure["type"] == "RetryRefused"
    assert "ConnectionError: not yet" in failure["message"]
    until(lambda: system.depth_messages("dead.parked") == 1)


def test_unroutable_retry_is_a_failure_of_type_retry_refused(system: System) -> None:
    """The broker confirms unroutable messages: without `mandatory`, retries would be lost and stay STARTED forever."""
    api = system.api()
    system.recorder()
    api.accepted("held", "first")
    retried = [api.accepted("flaky", f"unbound-{number}", failures=1) for number in range(8)]
    system.worker(RETRY_BACKOFF_S="1")
    place = f"/api/bindings/{system.vhost}/e/sluice/q/{WORK_QUEUE}"
    ask = system.servers.rabbitmq.management
    bindings = ask(place)
    for binding in bindings:
        ask(f"{place}/{binding['properties_key']}", "DELETE")
    system.release("first")  # lets the tasks behind it begin
    until(lambda: all(system.effects(f"unbound-{number}", "begun") for number in range(8)))
    _pass(2)  # longer than the longest delay
    for binding in bindings:
        ask(place, "POST", {name: binding[name] for name in ("routing_key", "arguments")})
    ends = [api.ended(task_id) for task_id in retried]
    failures = [end["task_result"] for end in ends if end["task_status"] == "FAILURE"]
    assert failures
    assert {failure["type"] for failure in failures} == {"RetryRefused"}
    assert all("NO_ROUTE" in failure["message"] for failure in failures)
    assert {end["task_status"] for end in ends} <= {"SUCCESS", "FAILURE"}


def _fill(api: Api) -> list[str]:
    responses = [api.post("sleep") for _ in range(20)]
    assert responses[-1].status_code == 503
    return [response.json()["task_id"] for response in responses if response.status_code == 202]


def _delayed(system: System) -> int:
    queues = system.servers.rabbitmq.management(f"/api/queues/{system.vhost}")
    return sum(queue.get("messages", 0) for queue in queues if queue["name"].startswith("celery_delayed_"))


def _ready(path: str) -> bool:
    return Path(path).exists()


def _pass(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, seconds + 5)
