"""Redis is full or refuses a value for its size: tasks wait only if waiting can help, and none is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from apps.contract import states
from apps.contract.ids import TaskIds
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS

MIB = 1024 * 1024
FULL = "urn:sluice:problem:results-full"


@pytest.fixture(autouse=True)
def limits(system: System) -> Iterator[None]:
    yield
    system.servers.restore()
    system.redis.config_set("maxmemory", 0)
    system.redis.config_set("proto-max-bulk-len", 512 * MIB)


def fill(system: System) -> int:
    """Write 16 MiB in small values, so that Redis allocates no large buffer; returns its used memory in bytes."""
    for number in range(256):
        system.redis.set(f"filling-{number}", "x" * 64 * 1024, ex=300)
    return int(memory(system)["used_memory"])


def memory(system: System) -> dict[str, Any]:
    found: Any = system.redis.info("memory")
    return dict(found)


@contextmanager
def full(system: System) -> Iterator[None]:
    """A Redis above its maxmemory during the block; the value of a task would fit into an empty Redis."""
    system.redis.config_set("maxmemory", fill(system) - 2 * MIB)
    yield
    system.redis.config_set("maxmemory", 0)
    system.redis.delete(*(f"filling-{number}" for number in range(256)))


def _keys(system: System) -> set[bytes]:
    """Return all keys except those of the quotas, which each API renews once a second."""
    with Redis.from_url(system.servers.redis.url()) as client:  # their names are binary
        return {key for key in client.scan_iter() if not key.startswith(b"sluice:")}


def _accepted(api: Api) -> str:
    """Post a task whose result fits; returns its id, or an empty text if it is refused."""
    answer = api.post("produce", size_bytes=MIB)
    assert answer.status_code in {202, 503}, answer.text
    return str(answer.json().get("task_id", ""))


def is_full(api: Api) -> bool:
    return bool(api.client.get("/healthz").json().get("redis") == "full")


def test_posts_are_refused_early_while_redis_is_full_and_leave_no_keys(system: System) -> None:
    api = system.api()
    system.redis.config_set("maxmemory", int(fill(system) / 0.95))  # above RESULTS_FULL_SHARE and below maxmemory
    until(lambda: is_full(api), 10, "a full Redis at /healthz")
    before = _keys(system)
    answers = [api.post("sleep"), api.post("sleep", key="early"), api.batch([{"task": "sleep", "name": "a"}], "b")]
    for answer in answers:
        assert (answer.status_code, answer.json()["type"], answer.json()["reason"]) == (503, FULL, "results-full")
        assert int(answer.headers["Retry-After"]) > 0
    assert _keys(system) <= before
    assert api.post("none").status_code == 422  # validation comes first
    assert system.depth_messages(WORK_QUEUE) == 0
    health = api.client.get("/healthz")
    assert (health.status_code, health.json()["broker"]) == (503, "up")
    assert 0.9 < health.json()["redis_memory_share"] < 1
    assert 0.9 < api.metric("sluice_redis_memory_share") < 1
    assert api.metric("sluice_refused_total") == 3
    system.redis.config_set("maxmemory", 0)
    until(lambda: api.post("sleep", key="early").status_code == 202, 10, "an accepted post")
    assert api.client.get("/healthz").json() == {"status": "ok", "broker": "up", "redis": "up"}


def test_last_memory_share_is_kept_while_redis_is_down(system: System) -> None:
    api = system.api()
    with full(system):
        until(lambda: is_full(api), 10, "a full Redis at /healthz")
        system.servers.redis.stop()
        until(lambda: api.client.get("/healthz").json()["redis"] == "down", 10)
        assert api.post("sleep").json()["type"] == FULL
        system.servers.redis.start()  # without the limit, which is not in its configuration file
    until(lambda: api.post("sleep").status_code == 202, 10, "an accepted post")


def test_key_refused_by_a_full_redis_gets_results_full(system: System) -> None:
    api = system.api(RESULTS_FULL_SHARE="1")
    api.client.get("/livez")  # opens its connection
    with full(system):
        answer = api.post("sleep", key="k")
    assert (answer.status_code, answer.json()["type"]) == (503, FULL)


@POOLS
def test_running_task_ends_once_redis_has_room(system: System, pool: str) -> None:
    api = system.api()
    system.worker(WORKER_POOL=pool)
    task_id = api.accepted("held", "kept")
    until(lambda: system.effects("kept", "begun") == 1)
    with full(system):
        system.release("kept")
        until(lambda: "OutOfMemoryError" in system.logs(), what="a result that finds no room")
        assert api.status(task_id)["task_status"] == "STARTED"
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert system.effects("kept", "begun") == 1


@POOLS
def test_failure_is_recorded_while_redis_is_full(system: System, pool: str) -> None:
    """A failure is small; the pool is then free for the next task."""
    api = system.api()
    system.worker(WORKER_POOL=pool)
    task_id = api.accepted("held", "fails")
    until(lambda: system.effects("fails", "begun") == 1)
    failed = api.accepted("limited", "limited")
    system.worker(WORKER_POOL="prefork")
    until(lambda: system.effects("limited", "begun") == 1)
    with full(system):
        assert api.ended(failed)["task_result"]["type"] == "SoftTimeLimitExceeded"
    system.release("fails")
    assert api.ended(task_id)["task_status"] == "SUCCESS"


def test_limits_and_cancellations_hold_while_redis_is_full(system: System) -> None:
    api = system.api()
    system.worker(WORKER_CONCURRENCY="2")
    system.recorder()
    stuck, running = api.accepted("stuck", "stuck"), api.accepted("sleep", "running", seconds=60)
    for name in ("stuck", "running"):
        until(lambda name=name: system.effects(name, "begun") == 1)  # type: ignore[misc]
    late = api.accepted("sleep", "late")  # no process is free
    with full(system):
        assert api.client.delete(f"/tasks/{late}").json()["task_status"] == "REVOKED"
        assert api.client.delete(f"/tasks/{running}").status_code == 202
        assert api.ended(running)["task_status"] == "REVOKED"
        assert api.ended(stuck)["task_result"]["type"] == "HardTimeLimitExceeded"
        until(lambda: system.depth_messages(WORK_QUEUE) == 0, what="the cancelled task skipped")
    assert system.effects("late", "begun") == 0


@pytest.mark.thorough
def test_task_in_a_thread_can_be_cancelled_while_redis_is_full(system: System) -> None:
    api = system.api()
    system.worker(WORKER_POOL="threads")
    task_id = api.accepted("held", "thread")
    until(lambda: system.effects("thread", "begun") == 1)
    late = api.accepted("sleep", "late")  # no thread is free
    with full(system):
        assert api.client.delete(f"/tasks/{task_id}").status_code == 202
        assert api.client.delete(f"/tasks/{late}").json()["task_status"] == "REVOKED"
        system.release("thread")
        until(lambda: "OutOfMemoryError" in system.logs())
    assert api.ended(task_id)["task_status"] in {"SUCCESS", "REVOKED"}
    assert system.effects("late", "begun") == 0


@POOLS
@pytest.mark.parametrize(("setting", "limit"), [("proto-max-bulk-len", 2 * MIB), ("maxmemory", 8 * MIB)])
def test_result_too_large_for_redis_is_an_immediate_failure(
    system: System, pool: str, setting: str, limit: int
) -> None:
    system.redis.flushall()  # values of earlier tests would count too
    api = system.api()
    system.worker(WORKER_POOL=pool)
    system.redis.config_set(setting, limit)
    result = api.ended(api.accepted("produce", size_bytes=9 * MIB), 20)["task_result"]
    assert result["type"] == "ResultTooLarge"
    assert setting in result["message"]
    assert str(9 * MIB) in result["message"]
    posted = until(lambda: _accepted(api))  # the refused value may occupy memory for a moment
    assert api.ended(posted)["task_status"] == "SUCCESS"


@POOLS
def test_record_overwritten_by_another_type_is_an_immediate_failure(system: System, pool: str) -> None:
    """Overwritten once before the task begins, and once while it runs."""
    api = system.api()
    ids = [api.accepted("held", "before"), api.accepted("held", "while")]
    system.redis.rpush(states.key(ids[0]), "theirs")
    assert api.status(ids[0])["task_result"]["type"] == states.UNREADABLE
    system.worker(WORKER_POOL=pool)
    until(lambda: system.effects("while", "begun") == 1)
    system.redis.delete(states.key(ids[1]))
    system.redis.set(states.key(ids[1]), "theirs")
    system.release("while")
    until(lambda: system.depth_messages(WORK_QUEUE) == 0, what="both ended")
    for task_id in ids:
        assert api.ended(task_id)["task_result"]["type"] == states.UNREADABLE
        assert api.client.delete(f"/tasks/{task_id}").status_code == 409
    assert system.effects("before", "begun") == 0


@POOLS
def test_success_that_redis_refuses_permanently_is_a_failure(system: System, pool: str) -> None:
    """The script for SUCCESS contains an unknown command."""
    api = system.api()
    system.worker("tests.harness.refused_end_worker", WORKER_POOL=pool, TEST_REFUSED="SUCCESS")
    assert api.ended(api.accepted("sleep"), 20)["task_result"]["type"] == "ResultNotStored"


def test_end_that_redis_refuses_permanently_is_a_dead_letter_with_its_reason(system: System) -> None:
    api = system.api()
    system.worker("tests.harness.refused_end_worker", TEST_REFUSED="all")
    system.recorder()
    ended = api.ended(api.accepted("sleep"), 20)
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "ResultNotStored")
    until(lambda: system.depth_messages("dead.parked") == 1)


def test_dead_letter_whose_failure_redis_refuses_is_parked(system: System) -> None:
    """The recorder then continues with the next dead letter."""
    system.define(message_ttl_s=1)
    api = system.api()
    system.recorder("tests.harness.refused_end_recorder")
    task_id = api.accepted("sleep")
    until(lambda: system.depth_messages("dead.parked") == 1, what="a parked message")
    until(lambda: system.depth_messages("dead") == 0)  # it is acked after that
    assert api.status(task_id)["task_status"] == "PENDING"


def test_posts_refused_by_the_broker_leave_no_key(system: System) -> None:
    """Only definite refusals; a key whose outcome is unknown is kept."""
    with Redis.from_url(system.servers.redis.url()) as client:
        earlier = set(client.scan_iter(b"sl:k:*"))
    api = system.api()
    system.define(max_length_messages=1)
    until(lambda: api.post("sleep").status_code == 503, what="a full queue")
    answers = [api.post("sleep", key=f"refused-{number}") for number in range(5)]
    assert {answer.json()["type"] for answer in answers} == {"urn:sluice:problem:refused"}
    with Redis.from_url(system.servers.redis.url()) as client:
        until(lambda: set(client.scan_iter(b"sl:k:*")) <= earlier, 10, "no key")
    system.define()
    assert api.post("sleep", "a", key="refused-0").status_code == 202
    assert api.post("sleep", "another body", key="refused-1").status_code == 202


def test_ended_marker_outlives_the_result(system: System) -> None:
    api = system.api(RESULT_TTL_S="60")
    system.worker(RESULT_TTL_S="60")
    for task in ("sleep", "fail"):
        task_id = api.accepted(task)
        api.ended(task_id)
        assert 0 < system.redis.ttl(states.key(task_id)) <= 60
        system.redis.pexpire(states.key(task_id), 1)
        until(lambda task_id=task_id: api.get(f"/tasks/{task_id}") == 410)  # type: ignore[misc]
        assert system.redis.ttl(states.record_keys(task_id).ended) > 24 * 3600
        assert api.client.delete(f"/tasks/{task_id}").status_code == 410
    never = TaskIds(system.task_id_key.encode()).new("tests")
    assert api.status(never)["task_status"] == "PENDING"
