"""Tasks without trouble from outside: results, failures, retries, logs and metrics."""

import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.contract import states, topology
from ops.servers.ports import free_ports
from tests.harness.clone import copy_apps
from tests.harness.records import Records
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    api = shared.api()
    shared.worker()
    shared.recorder()
    return api


def test_tasks_succeed_and_return_their_results(api: Api) -> None:
    ids = {task: api.accepted(task, "Łódź 東京") for task in ("first", "second")}
    for task_id in ids.values():
        assert api.ended(task_id) == {
            "task_id": task_id,
            "task_status": "SUCCESS",
            "task_result": {"name_task": "Łódź 東京", "state": "done"},
        }


def test_running_task_is_started(api: Api, shared: System) -> None:
    task_id = api.accepted("held", "started")
    until(lambda: api.status(task_id)["task_status"] == "STARTED")
    shared.release("started")
    assert api.ended(task_id)["task_status"] == "SUCCESS"


def test_error_of_a_task_is_a_failure_with_type_and_message(api: Api) -> None:
    """The original answered 500, as it tried to serialize the exception as JSON."""
    ended = api.ended(api.accepted("fail", "abc"))
    assert ended["task_status"] == "FAILURE"
    assert ended["task_result"] == {"type": "ValueError", "message": "abc is not acceptable"}


def test_result_is_kept_for_a_day(api: Api, shared: System) -> None:
    """In the original, results turned back into PENDING after 200 s."""
    for task in ("second", "fail"):
        task_id = api.accepted(task)
        api.ended(task_id)
        assert shared.redis.ttl(states.key(task_id)) >= 24 * 3600


def test_both_queues_are_consumed(api: Api) -> None:
    """The original never read messages of the queue `celery`."""
    assert api.ended(api.accepted("elsewhere"))["task_status"] == "SUCCESS"


def test_only_transient_errors_are_retried(api: Api, shared: System) -> None:
    assert api.ended(api.accepted("flaky", "retried", failures=2))["task_status"] == "SUCCESS"
    assert shared.effects("retried", "begun") == 3
    assert api.ended(api.accepted("fail", "once"))["task_status"] == "FAILURE"


def test_task_needs_two_redis_calls_and_prefetch_is_as_configured(system: System) -> None:
    api = system.api()
    system.worker(WORKER_CONCURRENCY="2", WORKER_PREFETCH="3")
    api.ended(api.accepted("second"))  # loads both scripts into Redis

    def prefetched() -> dict[str, int]:
        listed = system.servers.rabbitmq.management(f"/api/consumers/{system.vhost}")
        return {each["queue"]["name"]: each["prefetch_count"] for each in listed}

    # the management API lists new consumers late, and one after the other
    until(lambda: prefetched().keys() >= set(topology.WORK_QUEUES))
    held = prefetched()
    assert {queue: held[queue] for queue in topology.WORK_QUEUES} == dict.fromkeys(topology.WORK_QUEUES, 6)
    system.redis.config_resetstat()
    for task_id in [api.accepted("second") for _ in range(5)]:
        api.ended(task_id)
    stats: Any = system.redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 2 * 5 + 5  # the worker's begin and end, and the API's read
    # The commands of the scripts and the API's subscriptions, but none of Celery's result backend.
    ours = {"evalsha", "exists", "get", "getrange", "hmget", "set", "strlen", "sadd", "expireat", "hincrby", "expire"}
    ours |= {"publish", "subscribe", "unsubscribe"}
    ours |= {"eval", "time", "hget", "hset", "hdel", "hgetall", "zadd", "zcard", "zremrangebyscore"}  # quotas
    known = ours | {"ping", "config|resetstat", "hello", "info", "client|setinfo", "client|setname", "auth", "select"}
    assert {name.removeprefix("cmdstat_") for name in stats} <= known


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="needs Linux")
@POOLS
def test_worker_runs_with_batch_scheduling(system: System, pool: str) -> None:
    api, worker = system.api(), system.worker(WORKER_POOL=pool, METRICS_PORT=str(free_ports(1)[0]))
    api.ended(api.accepted("second"))
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    threads = [int(thread.name) for thread in Path(f"/proc/{worker.pid}/task").iterdir()]
    assert len(children) + len(threads) > 1
    assert {os.sched_getscheduler(one) for one in (*map(int, children), *threads)} == {os.SCHED_BATCH}


def test_each_attempt_is_logged(api: Api, shared: System) -> None:
    task_id = api.accepted("flaky", "lines", failures=2)
    api.ended(task_id)

    def lines() -> list[tuple[object, object]]:
        about = [line for line in shared.log_lines() if line.get("task_id") == task_id and "retries" in line]
        return [(line["message"], line["retries"]) for line in about]

    # the last line is written after the client's answer
    until(lambda: lines() == [("tried again later", 0), ("tried again later", 1), ("ended", 2)], what="a line for each")


@pytest.mark.parametrize(
    ("task", "result"),
    [
        ("odd", {"type": "OddError", "message": "404: not there"}),
        ("hungry", {"type": "MemoryError", "message": "no more"}),
    ],
)
def test_unusual_errors_are_readable_and_the_worker_continues(api: Api, task: str, result: dict[str, str]) -> None:
    assert api.ended(api.accepted(task))["task_result"] == result
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"


def test_result_that_cannot_be_decoded_is_a_failure(api: Api) -> None:
    """Python writes integers of any length, but does not read more than 4,300 digits."""
    assert api.ended(api.accepted("count", digits=4000))["task_result"]["number"] == 10**3999
    ended = api.ended(api.accepted("count", digits=5000))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "ValueError")


def test_task_fails_after_the_maximum_number_of_retries(system: System) -> None:
    api = system.api()
    system.worker(RETRY_MAX="2")
    ended = api.ended(api.accepted("flaky", "ends", failures=9))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "ConnectionError")
    assert system.effects("ends", "begun") == 3


def test_every_log_line_of_a_task_has_task_and_request_id(api: Api, shared: System) -> None:
    response = api.client.post("/tasks", json={"task": "second", "name": "a"}, headers={"X-Request-ID": "mine-1"})
    task_id = response.json()["task_id"]
    api.ended(task_id)
    assert response.headers["X-Request-ID"] == "mine-1"

    def lines() -> list[dict[str, object]]:
        return [line for line in shared.log_lines() if task_id in str(line) and "GET" not in str(line)]

    until(lambda: {line["message"] for line in lines()} == {"request", "ended"})
    assert {(line["task_id"], line["request_id"]) for line in lines()} == {(task_id, "mine-1")}


def test_every_log_line_is_json(api: Api, shared: System) -> None:
    api.ended(api.accepted("fail"))
    assert [line for line in shared.logs().splitlines() if line and not line.startswith("{")] == []


def test_api_and_worker_count_tasks_in_their_metrics(system: System) -> None:
    api = system.api()
    worker = system.worker(METRICS_PORT=str(_free_port()))
    api.ended(api.accepted("second"))
    api.ended(api.accepted("fail"))
    text = until(lambda: _scrape(worker.env["METRICS_PORT"], 'outcome="failure"'))
    assert f'sluice_task_results_total{{outcome="success",task="{WORK_QUEUE}:second"}} 1.0' in text
    assert api.metric("sluice_accepted_total") == api.metric("sluice_publish_seconds_count") == 2
    assert re.search(rf'sluice_task_wait_seconds_count{{task="{WORK_QUEUE}:second"}} 1.0', text)
    assert re.search(rf'sluice_task_run_seconds_count{{task="{WORK_QUEUE}:second"}} 1.0', text)


def test_pool_process_above_its_memory_limit_is_replaced(system: System) -> None:
    api = system.api()
    system.worker(WORKER_MAX_MEMORY_MIB="200")
    for mib in (0, 300, 0):
        assert api.ended(api.accepted("grow", mib=mib))["task_status"] == "SUCCESS"

    def pids() -> list[object]:
        return [line["pid"] for line in system.log_lines() if line["message"] == "ended"]

    # the line is written after the client's answer
    small, large, next_ = until(lambda: len(pids()) == 3 and pids())  # type: ignore[misc]
    assert small == large != next_


def test_tasks_are_replaced_by_replacing_their_folders(system: System, tmp_path: Path) -> None:
    copy_apps(tmp_path)
    api = system.api("apps.api.app", cwd=tmp_path)
    system.worker("apps.worker.celery_app", cwd=tmp_path, NAP_S="0.1")
    assert api.ended(api.accepted("nap"))["task_result"] == {"name": "abc"}
    assert api.post("first").status_code == 422


def _free_port() -> int:
    return free_ports(1)[0]


def _scrape(port: str, wanted: str) -> str:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return text if wanted in text else ""


def test_worker_has_one_connection_and_declares_no_event_exchange(system: System) -> None:
    """Celery's heartbeat events would need a second connection per pod, and an exchange without readers."""
    system.worker()
    task_id = system.api().accepted("first")
    until(lambda: Records(system.redis).read(task_id).state == "SUCCESS")
    listed = system.servers.rabbitmq.management(f"/api/exchanges/{system.vhost}")
    exchanges = {exchange["name"] for exchange in listed}
    assert not {name for name in exchanges if name.startswith("celery") and "delayed" not in name}
    until(lambda: len(system.broker_connections("worker")) == 1)
