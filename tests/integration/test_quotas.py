"""Quotas: what a client may have accepted per second, and waiting or running at once, over all replicas."""

import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from apps.api import quotas
from apps.contract import quota
from apps.contract.ids import TaskIds
from tests.harness.records import Records
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.integration.test_dead_letters import command

OWNER = "tests"
# A renewal a second, and the time of a busy machine.
RENEWED_S = 10


@pytest.fixture
def system(system: System) -> Iterator[System]:
    """Its counts begin at nothing: systems share a Redis, and a client's name is the same in all."""
    _forget(system)
    yield system
    _forget(system)


def _forget(system: System) -> None:
    system.redis.delete(quota.key(OWNER), quota.key("other"), quotas.REPLICAS)


def open_tasks(system: System) -> int:
    """The open tasks that Redis counts."""
    counts: Any = system.redis.hgetall(quota.key(OWNER))
    return sum(int(value) for name, value in counts.items() if name not in {"tokens", "refilled_s"})


def inputs(count: int, prefix: str = "batch") -> list[dict[str, Any]]:
    return [{"task": "sleep", "name": f"{prefix}-{number}"} for number in range(count)]


def kind(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def test_open_tasks_are_counted_refused_and_free_again_when_they_end(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="5")
    assert api.batch(inputs(3)).status_code == 202
    ids = [api.accepted("sleep", f"single-{number}") for number in range(2)]
    refused = api.post("sleep", "one more")
    assert (refused.status_code, kind(refused)) == (429, "quota-exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["quota"] == {"tasks_per_s": 1_000_000, "open_tasks": 5, "exceeded": "open_tasks"}
    assert api.metric("sluice_quota_refused_total") == 1
    system.worker()
    until(lambda: api.post("sleep", "later").status_code == 202, RENEWED_S)
    assert api.ended(ids[0])["task_status"] == "SUCCESS"
    until(lambda: open_tasks(system) == 0)


def test_rate_counts_tasks_and_not_requests(system: System) -> None:
    """At 10 a second a client may have 1,000 at once; after that, a batch of 20 fits after 2 s."""
    api = system.api(QUOTA_TASKS_PER_S="10")
    assert api.batch(inputs(1000)).status_code == 202

    def refused() -> httpx.Response | None:  # on a busy machine 1,000 publishes take longer than 20 tokens
        answer = api.batch(inputs(20))
        return answer if answer.status_code == 429 else None

    refusal = until(refused)
    started_s = time.monotonic()
    assert refusal
    assert refusal.json()["quota"]["exceeded"] == "tasks_per_s"
    retry_after_s = int(refusal.headers["Retry-After"])  # rounded up
    assert 1 <= retry_after_s <= 2
    until(lambda: api.batch(inputs(20)).status_code == 202, RENEWED_S)
    assert time.monotonic() - started_s > retry_after_s - 1.1


def test_batch_is_admitted_or_refused_whole(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="10")
    refused = api.batch(inputs(11))
    assert (refused.status_code, kind(refused)) == (429, "quota-exceeded")
    assert "10 tasks at most" in refused.json()["detail"]
    assert system.depth_messages(WORK_QUEUE) == 0
    until(lambda: api.batch(inputs(10)).status_code == 202, RENEWED_S)
    until(lambda: system.depth_messages(WORK_QUEUE) == 10)


def test_invalid_inputs_and_refused_publishes_cost_nothing(system: System) -> None:
    system.define(max_length_messages=0)
    api = system.api(QUOTA_OPEN_TASKS="4")
    for _ in range(3):
        assert api.post("nothing").status_code == 422
        assert api.batch([*inputs(2), {"task": "nothing"}, {"task": "nothing"}, {}, {}]).status_code in {202, 503}
    system.define()
    until(lambda: api.batch(inputs(2)).status_code == 202, RENEWED_S)


def test_repeated_post_is_answered_though_the_quota_is_used_up(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="4")
    first, batch = api.post("sleep", key="one"), api.batch(inputs(3), "batch")
    assert (first.status_code, batch.status_code) == (202, 202)
    assert api.post("sleep", "more").status_code == 429
    for _ in range(2):
        assert api.post("sleep", key="one").json() == first.json()
        assert api.batch(inputs(3), "batch").json() == batch.json()
    assert api.post("sleep", "other body", key="one").status_code == 422
    until(lambda: open_tasks(system) == 4)


def test_refused_post_leaves_no_key(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="1")
    api.accepted("sleep")
    before = _keys(system)
    assert api.post("sleep", "refused", key="refused").status_code == 429
    assert api.batch(inputs(2), "refused-batch").status_code == 429
    assert _keys(system) <= before  # those of earlier tests may expire


def _keys(system: System) -> set[bytes]:
    """The records of Idempotency-Keys."""
    with Redis.from_url(system.servers.redis.url()) as client:  # their names are no text
        return set(client.scan_iter(b"sl:k:*"))


def test_cancel_of_a_waiting_task_frees_its_place(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="1")
    task_id = api.accepted("sleep")
    assert api.post("sleep").status_code == 429
    until(lambda: open_tasks(system) == 1)
    assert api.client.delete(f"/tasks/{task_id}").status_code == 200
    assert api.client.delete(f"/tasks/{task_id}").status_code == 200  # once is enough
    assert open_tasks(system) == 0
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_task_that_is_cancelled_before_its_next_try_frees_its_place(system: System) -> None:
    """`begin` ends it."""
    records, task_id = Records(system.redis), TaskIds(system.task_id_key.encode()).new(OWNER)
    system.redis.hincrby(quota.key(OWNER), quota.field(task_id), 1)
    assert records.begin(task_id, "publish", owner=OWNER) == "run"
    assert records.cancel(task_id) == "STARTED"
    assert open_tasks(system) == 1
    assert records.begin(task_id, "publish", owner=OWNER) == "cancelled"
    assert open_tasks(system) == 0


def test_dead_letter_lowers_the_count_and_requeue_raises_it(system: System) -> None:
    api = system.api()
    system.recorder()
    task_id = api.accepted("sleep")
    until(lambda: open_tasks(system) == 1)
    place = f"/api/queues/{system.vhost}/{WORK_QUEUE}/get"
    rejected = {"count": 1, "ackmode": "reject_requeue_false", "encoding": "auto"}
    until(lambda: system.servers.rabbitmq.management(place, "POST", rejected))
    assert api.ended(task_id)["task_status"] == "FAILURE"
    assert open_tasks(system) == 0
    until(lambda: system.depth_messages("dead.parked") == 1)
    new_id = command(system, "requeue", task_id).strip()
    assert open_tasks(system) == 1
    system.worker()
    assert api.ended(new_id)["task_status"] == "SUCCESS"
    assert open_tasks(system) == 0


def test_replicas_share_a_quota(system: System) -> None:
    """Each replica has half of what is left, and all of it can be used. The excess is at most a share for each.

    A replica that renews between the other's posts and their report still counts them as left.
    """
    apis = [system.api(QUOTA_OPEN_TASKS="40") for _ in range(2)]
    until(lambda: system.redis.zcard(quotas.REPLICAS) == 2)
    _renewed(system, apis)
    assert _accepted_together(apis, 120) <= 40 + 2 * 20
    assert until(lambda: _refused_by_all(apis) and open_tasks(system), RENEWED_S) in range(40, 40 + 2 * 20 + 1)


def _renewed(system: System, apis: list[Api]) -> None:
    """Wait until each replica has renewed its share since it knows of the others."""
    replicas: Any = system.redis.zrange(quotas.REPLICAS, 0, -1)
    assert len(replicas) == len(apis)
    for replica in replicas:
        reports = f"sluice:reports:{replica}"
        before = _report(system, reports)
        until(lambda: _report(system, reports) > before + 1)  # noqa: B023 - within this turn of the loop


def _report(system: System, reports: str) -> int:
    """The number of a replica's last report of the client."""
    number: Any = system.redis.hget(reports, OWNER)
    return int(number or 0)


def _accepted_together(apis: list[Api], posts: int) -> int:
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda number: apis[number % 2].post("sleep").status_code, range(posts))
        return sum(status == 202 for status in found)


def _refused_by_all(apis: list[Api]) -> bool:
    return all(api.post("sleep").status_code == 429 for api in apis)


def test_one_client_does_not_use_up_what_another_has(system: System) -> None:
    theirs = secrets.token_urlsafe(24)
    api = system.api(API_KEYS=f"tests:{system.key},other:{theirs}", QUOTA_OPEN_TASKS="3")
    assert [api.post("sleep").status_code for _ in range(4)] == [202, 202, 202, 429]
    other = api.client.post(
        "/tasks", json={"task": "sleep", "name": "a"}, headers={"Authorization": f"Bearer {theirs}"}
    )
    assert other.status_code == 202


def test_without_redis_the_last_share_stays_in_force(system: System) -> None:
    api = system.api(QUOTA_TASKS_PER_S="5", QUOTA_OPEN_TASKS="1200")
    assert api.batch(inputs(1000)).status_code == 202
    until(lambda: open_tasks(system) == 1000)
    system.servers.redis.suspend()
    accepted = 0
    deadline_s = time.monotonic() + 30
    while accepted < 20:  # the rate goes on: more than any share that Redis could have given before it went away
        assert time.monotonic() < deadline_s
        response = api.post("sleep")
        assert response.status_code in {202, 429}, response.text
        accepted += response.status_code == 202
    system.servers.redis.resume()
    until(lambda: open_tasks(system) == 1000 + accepted, what="each accepted task counted once")


def test_emptied_redis_forgets_counts_and_recovers(system: System) -> None:
    """The tasks that it knew of lower counts that nobody raised: negative ones mean none, and no error lasts."""
    api = system.api(QUOTA_OPEN_TASKS="20")
    assert api.batch(inputs(20)).status_code == 202
    until(lambda: open_tasks(system) == 20)
    system.redis.delete(quota.key(OWNER))
    system.worker(WORKER_CONCURRENCY="4")
    until(lambda: open_tasks(system) == -20)
    assert system.redis.ttl(quota.key(OWNER)) > 0
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_count_of_a_period_older_than_a_record_is_deleted(system: System) -> None:
    """As a process leaves that was killed between a task's end and a later report."""
    api = system.api(QUOTA_OPEN_TASKS="10")
    life_ms = 1000 * (24 + 25 + 1) * 3600
    old = f"{(int(time.time() * 1000) - life_ms) >> quota.PERIOD_BITS:07x}"
    system.redis.hset(quota.key(OWNER), old, 10)
    until(lambda: not system.redis.hexists(quota.key(OWNER), old))
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_api_that_is_killed_counts_too_little_and_no_task_twice(system: System) -> None:
    """What it accepted in its last second is not counted; its ends make the period's count negative, which is none."""
    api = system.api(QUOTA_OPEN_TASKS="10")
    ids = [api.accepted("sleep", f"killed-{number}") for number in range(5)]
    api.child.signal(signal.SIGKILL)
    other = system.api(QUOTA_OPEN_TASKS="10")
    system.worker()
    assert {other.ended(task_id)["task_status"] for task_id in ids} == {"SUCCESS"}
    until(lambda: open_tasks(system) <= 0)
    # the killed replica has its part of the quota until it has not renewed for a while
    until(lambda: other.batch(inputs(10)).status_code == 202, RENEWED_S + quotas.REPLICA_S)


def test_orderly_end_of_an_api_reports_what_it_accepted(system: System) -> None:
    api = system.api()
    api.accepted("sleep")
    api.child.signal(signal.SIGTERM)
    until(lambda: not api.child.alive)
    assert open_tasks(system) == 1


def test_keys_and_quotas_come_from_a_file(system: System) -> None:
    path = system.folder / "keys.json"
    path.write_text(f'[{{"name": "tests", "key": "{system.key}", "open_tasks": 2, "tasks_per_s": 7}}]')
    api = system.api(API_KEYS="", API_KEYS_FILE=str(path))
    assert [api.post("sleep").status_code for _ in range(3)] == [202, 202, 429]
    assert api.post("sleep").json()["quota"] == {"tasks_per_s": 7, "open_tasks": 2, "exceeded": "open_tasks"}


def test_refusals_after_the_first_are_held_back(system: System) -> None:
    """A connection of a client that ignores Retry-After costs a refusal in two seconds."""
    api = system.api(QUOTA_OPEN_TASKS="1")
    api.accepted("sleep")

    def refusal_s(_: int) -> float:
        started_s = time.monotonic()
        assert api.post("sleep").status_code == 429
        return time.monotonic() - started_s

    with ThreadPoolExecutor(32) as threads:
        took_s = sorted(threads.map(refusal_s, range(32)))
    assert sum(each >= 0.5 * quotas.REFUSAL_DELAY_S for each in took_s) >= 32 - 2 * quotas.IMMEDIATE_MAX
