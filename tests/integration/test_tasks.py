"""What a task goes through when nothing goes wrong, or only the task itself does."""

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


def test_both_example_tasks_succeed(api: Api) -> None:
    ids = {task: api.accepted(task, "Łódź 東京") for task in ("first", "second")}
    for task_id in ids.values():
        assert api.ended(task_id) == {
            "task_id": task_id,
            "task_status": "SUCCESS",
            "task_result": {"name_task": "Łódź 東京", "state": "done"},
        }


def test_started_is_seen_while_a_task_runs(api: Api, shared: System) -> None:
    task_id = api.accepted("held", "started")
    until(lambda: api.status(task_id)["task_status"] == "STARTED")
    shared.release("started")
    assert api.ended(task_id)["task_status"] == "SUCCESS"


def test_failed_task_is_a_readable_failure(api: Api) -> None:
    """Defect 2: the original answered 500, since an exception is not JSON."""
    ended = api.ended(api.accepted("fail", "abc"))
    assert ended["task_status"] == "FAILURE"
    assert ended["task_result"] == {"type": "ValueError", "message": "abc is not acceptable"}


def test_result_is_kept_for_a_day(api: Api, shared: System) -> None:
    """Defect 3: the original's results turned back into PENDING after 200 s."""
    for task in ("second", "fail"):
        task_id = api.accepted(task)
        api.ended(task_id)
        assert shared.redis.ttl(states.key(task_id)) >= 24 * 3600


def test_both_queues_are_consumed(api: Api) -> None:
    """Defect 9: what the original routed to `celery` was never read."""
    assert api.ended(api.accepted("elsewhere"))["task_status"] == "SUCCESS"


def test_transient_errors_are_retried_and_others_are_not(api: Api, shared: System) -> None:
    assert api.ended(api.accepted("flaky", "retried", failures=2))["task_status"] == "SUCCESS"
    assert shared.effects("retried", "begun") == 3
    assert api.ended(api.accepted("fail", "once"))["task_status"] == "FAILURE"


def test_task_costs_two_calls_of_redis_and_prefetch_is_what_is_set(system: System) -> None:
    api = system.api()
    system.worker(WORKER_CONCURRENCY="2", WORKER_PREFETCH="3")
    api.ended(api.accepted("second"))  # Redis has both scripts

    def prefetched() -> dict[str, int]:
        listed = system.servers.rabbitmq.management(f"/api/consumers/{system.vhost}")
        return {each["queue"]["name"]: each["prefetch_count"] for each in listed}

    # the management's list comes later, one consumer after the other
    until(lambda: prefetched().keys() >= set(topology.WORK_QUEUES))
    held = prefetched()
    assert {queue: held[queue] for queue in topology.WORK_QUEUES} == dict.fromkeys(topology.WORK_QUEUES, 6)
    system.redis.config_resetstat()
    for task_id in [api.accepted("second") for _ in range(5)]:
        api.ended(task_id)
    stats: Any = system.redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 2 * 5 + 5  # the worker's begin and end, and the API's read
    # The commands in the scripts, the API's subscriptions, and none of Celery's own.
    ours = {"evalsha", "exists", "get", "getrange", "hmget", "set", "strlen", "sadd", "expireat", "hincrby", "expire"}
    ours |= {"publish", "subscribe", "unsubscribe"}
    ours |= {"eval", "time", "hget", "hset", "hdel", "hgetall", "zadd", "zcard", "zremrangebyscore"}  # of the quotas
    known = ours | {"ping", "config|resetstat", "hello", "info", "client|setinfo", "client|setname", "auth", "select"}
    assert {name.removeprefix("cmdstat_") for name in stats} <= known


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="of Linux")
@POOLS
def test_worker_that_wakes_lets_others_run_on(system: System, pool: str) -> None:
    api, worker = system.api(), system.worker(WORKER_POOL=pool, METRICS_PORT=str(free_ports(1)[0]))
    api.ended(api.accepted("second"))
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    threads = [int(thread.name) for thread in Path(f"/proc/{worker.pid}/task").iterdir()]
    assert len(children) + len(threads) > 1
    assert {os.sched_getscheduler(one) for one in (*map(int, children), *threads)} == {os.SCHED_BATCH}


def test_each_attempt_leaves_a_line(api: Api, shared: System) -> None:
    task_id = api.accepted("flaky", "lines", failures=2)
    api.ended(task_id)

    def lines() -> list[tuple[object, object]]:
        about = [line for line in shared.log_lines() if line.get("task_id") == task_id and "retries" in line]
        return [(line["message"], line["retries"]) for line in about]

    # the last one comes after the client's answer
    until(lambda: lines() == [("tried again later", 0), ("tried again later", 1), ("ended", 2)], what="a line for each")


@pytest.mark.parametrize(
    ("task", "result"),
    [
        ("odd", {"type": "OddError", "message": "404: not there"}),
        ("hungry", {"type": "MemoryError", "message": "no more"}),
    ],
)
def test_unusual_errors_are_readable_and_hurt_nobody(api: Api, task: str, result: dict[str, str]) -> None:
    assert api.ended(api.accepted(task))["task_result"] == result
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"


def test_result_that_nobody_could_read_is_a_failure(api: Api) -> None:
    """Python writes an integer of any length, and reads none of more than 4,300 digits."""
    assert api.ended(api.accepted("count", digits=4000))["task_result"]["number"] == 10**3999
    ended = api.ended(api.accepted("count", digits=5000))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "ValueError")


def test_retries_come_to_an_end(system: System) -> None:
    api = system.api()
    system.worker(RETRY_MAX="2")
    ended = api.ended(api.accepted("flaky", "ends", failures=9))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "ConnectionError")
    assert system.effects("ends", "begun") == 3


def test_every_line_about_a_task_has_both_ids(api: Api, shared: System) -> None:
    response = api.client.post("/tasks", json={"task": "second", "name": "a"}, headers={"X-Request-ID": "mine-1"})
    task_id = response.json()["task_id"]
    api.ended(task_id)
    assert response.headers["X-Request-ID"] == "mine-1"

    def lines() -> list[dict[str, object]]:
        return [line for line in shared.log_lines() if task_id in str(line) and "GET" not in str(line)]

    until(lambda: {line["message"] for line in lines()} == {"request", "ended"})
    assert {(line["task_id"], line["request_id"]) for line in lines()} == {(task_id, "mine-1")}


def test_every_line_is_json(api: Api, shared: System) -> None:
    api.ended(api.accepted("fail"))
    assert [line for line in shared.logs().splitlines() if line and not line.startswith("{")] == []


def test_metrics_of_both_sides_count_a_task(system: System) -> None:
    api = system.api()
    worker = system.worker(METRICS_PORT=str(_free_port()))
    api.ended(api.accepted("second"))
    api.ended(api.accepted("fail"))
    text = until(lambda: _scrape(worker.env["METRICS_PORT"], 'outcome="failure"'))
    assert f'sluice_task_results_total{{outcome="success",task="{WORK_QUEUE}:second"}} 1.0' in text
    assert api.metric("sluice_accepted_total") == api.metric("sluice_publish_seconds_count") == 2
    assert re.search(rf'sluice_task_wait_seconds_count{{task="{WORK_QUEUE}:second"}} 1.0', text)
    assert re.search(rf'sluice_task_run_seconds_count{{task="{WORK_QUEUE}:second"}} 1.0', text)


def test_child_that_grew_too_large_is_replaced(system: System) -> None:
    api = system.api()
    system.worker(WORKER_MAX_MEMORY_MIB="200")
    for mib in (0, 300, 0):
        assert api.ended(api.accepted("grow", mib=mib))["task_status"] == "SUCCESS"

    def pids() -> list[object]:
        return [line["pid"] for line in system.log_lines() if line["message"] == "ended"]

    # the line comes after the client's answer
    small, large, next_ = until(lambda: len(pids()) == 3 and pids())  # type: ignore[misc]
    assert small == large != next_


def test_replacing_the_tasks_is_replacing_their_folders(system: System, tmp_path: Path) -> None:
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


def test_worker_has_one_connection_and_declares_nothing(system: System) -> None:
    """Celery's heartbeat events would cost each pod a second connection, and an exchange that nobody reads."""
    system.worker()
    task_id = system.api().accepted("first")
    until(lambda: Records(system.redis).read(task_id).state == "SUCCESS")
    listed = system.servers.rabbitmq.management(f"/api/exchanges/{system.vhost}")
    exchanges = {exchange["name"] for exchange in listed}
    assert not {name for name in exchanges if name.startswith("celery") and "delayed" not in name}
    until(lambda: len(system.broker_connections("worker")) == 1)
