"""Quotas limit accepted tasks per second and open tasks (waiting or running) per client, over all replicas."""

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
# Shares are renewed once a second; the rest is a margin for a busy machine.
RENEWED_S = 10


@pytest.fixture
def system(system: System) -> Iterator[System]:
    """A system whose counts start at zero: systems share a Redis and the client's name."""
    _forget(system)
    yield system
    _forget(system)


def _forget(system: System) -> None:
    system.redis.delete(quota.key(OWNER), quota.key("other"), quotas.REPLICAS)


def open_tasks(system: System) -> int:
    """Return the number of open tasks that Redis counts."""
    counts: Any = system.redis.hgetall(quota.key(OWNER))
    return sum(int(value) for name, value in counts.items() if name not in {"tokens", "refilled_s"})


def inputs(count: int, prefix: str = "batch") -> list[dict[str, Any]]:
    return [{"task": "sleep", "name": f"{prefix}-{number}"} for number in range(count)]


def kind(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def test_posts_beyond_the_open_tasks_are_refused_until_tasks_end(system: System) -> None:
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
    """At 10 tasks per second a client may post 1,000 at once; afterwards a batch of 20 fits after 2 s."""
    api = system.api(QUOTA_TASKS_PER_S="10")
    assert api.batch(inputs(1000)).status_code == 202

    def refused() -> httpx.Response | None:  # on a busy machine 20 tokens are refilled during 1,000 publishes
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


def test_batch_is_admitted_or_refused_as_a_whole(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="10")
    refused = api.batch(inputs(11))
    assert (refused.status_code, kind(refused)) == (429, "quota-exceeded")
    assert "10 tasks at most" in refused.json()["detail"]
    assert system.depth_messages(WORK_QUEUE) == 0
    until(lambda: api.batch(inputs(10)).status_code == 202, RENEWED_S)
    until(lambda: system.depth_messages(WORK_QUEUE) == 10)


def test_invalid_inputs_and_refused_publishes_do_not_count(system: System) -> None:
    system.define(max_length_messages=0)
    api = system.api(QUOTA_OPEN_TASKS="4")
    for _ in range(3):
        assert api.post("nothing").status_code == 422
        assert api.batch([*inputs(2), {"task": "nothing"}, {"task": "nothing"}, {}, {}]).status_code in {202, 503}
    system.define()
    until(lambda: api.batch(inputs(2)).status_code == 202, RENEWED_S)


def test_repeated_post_is_answered_after_the_quota_is_used_up(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="4")
    first, batch = api.post("sleep", key="one"), api.batch(inputs(3), "batch")
    assert (first.status_code, batch.status_code) == (202, 202)
    assert api.post("sleep", "more").status_code == 429
    for _ in range(2):
        assert api.post("sleep", key="one").json() == first.json()
        assert api.batch(inputs(3), "batch").json() == batch.json()
    assert api.post("sleep", "other body", key="one").status_code == 422
    until(lambda: open_tasks(system) == 4)


def test_refused_post_stores_no_key(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="1")
    api.accepted("sleep")
    before = _keys(system)
    assert api.post("sleep", "refused", key="refused").status_code == 429
    assert api.batch(inputs(2), "refused-batch").status_code == 429
    assert _keys(system) <= before  # keys of earlier tests may expire


def _keys(system: System) -> set[bytes]:
    """Return the names of the records of Idempotency-Keys."""
    with Redis.from_url(system.servers.redis.url()) as client:  # their names are binary
        return set(client.scan_iter(b"sl:k:*"))


def test_cancel_of_a_waiting_task_lowers_the_count_once(system: System) -> None:
    api = system.api(QUOTA_OPEN_TASKS="1")
    task_id = api.accepted("sleep")
    assert api.post("sleep").status_code == 429
    until(lambda: open_tasks(system) == 1)
    assert api.client.delete(f"/tasks/{task_id}").status_code == 200
    assert api.client.delete(f"/tasks/{task_id}").status_code == 200  # a repetition must not lower the count again
    assert open_tasks(system) == 0
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_cancel_before_the_next_try_lowers_the_count(system: System) -> None:
    """The task is running when it is cancelled; the `begin` of its next try ends it."""
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
    """Each replica gets half of the remaining quota; the whole quota can be used. The excess is at most a share each.

    A replica that renews its share between the posts of the other and their report does not know these posts yet.
    """
    apis = [system.api(QUOTA_OPEN_TASKS="40") for _ in range(2)]
    until(lambda: system.redis.zcard(quotas.REPLICAS) == 2)
    _renewed(system, apis)
    assert _accepted_together(apis, 120) <= 40 + 2 * 20
    assert until(lambda: _refused_by_all(apis) and open_tasks(system), RENEWED_S) in range(40, 40 + 2 * 20 + 1)


def _renewed(system: System, apis: list[Api]) -> None:
    """Wait until each replica has renewed its share after it registered the others."""
    replicas: Any = system.redis.zrange(quotas.REPLICAS, 0, -1)
    assert len(replicas) == len(apis)
    for replica in replicas:
        reports = f"sluice:reports:{replica}"
        before = _report(system, reports)
        until(lambda: _report(system, reports) > before + 1)  # noqa: B023 - called within this iteration


def _report(system: System, reports: str) -> int:
    """Return the number of a replica's last report for the client."""
    number: Any = system.redis.hget(reports, OWNER)
    return int(number or 0)


def _accepted_together(apis: list[Api], posts: int) -> int:
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda number: apis[number % 2].post("sleep").status_code, range(posts))
        return sum(status == 202 for status in found)


def _refused_by_all(apis: list[Api]) -> bool:
    return all(api.post("sleep").status_code == 429 for api in apis)


def test_clients_have_separate_quotas(system: System) -> None:
    theirs = secrets.token_urlsafe(24)
    api = system.api(API_KEYS=f"tests:{system.key},other:{theirs}", QUOTA_OPEN_TASKS="3")
    assert [api.post("sleep").status_code for _ in range(4)] == [202, 202, 202, 429]
    other = api.client.post(
        "/tasks", json={"task": "sleep", "name": "a"}, headers={"Authorization": f"Bearer {theirs}"}
    )
    assert other.status_code == 202


def test_last_share_stays_in_force_without_redis(system: System) -> None:
    api = system.api(QUOTA_TASKS_PER_S="5", QUOTA_OPEN_TASKS="1200")
    assert api.batch(inputs(1000)).status_code == 202
    until(lambda: open_tasks(system) == 1000)
    system.servers.redis.suspend()
    accepted = 0
    deadline_s = time.monotonic() + 30
    while accepted < 20:  # the rate is still refilled: more than the last share of Redis
        assert time.monotonic() < deadline_s
        response = api.post("sleep")
        assert response.status_code in {202, 429}, response.text
        accepted += response.status_code == 202
    system.servers.redis.resume()
    until(lambda: open_tasks(system) == 1000 + accepted, what="each accepted task counted once")


def test_counts_recover_after_redis_was_emptied(system: System) -> None:
    """Tasks that were counted before lower the new counts: negative counts mean zero, and posts are accepted again."""
    api = system.api(QUOTA_OPEN_TASKS="20")
    assert api.batch(inputs(20)).status_code == 202
    until(lambda: open_tasks(system) == 20)
    system.redis.delete(quota.key(OWNER))
    system.worker(WORKER_CONCURRENCY="4")
    until(lambda: open_tasks(system) == -20)
    assert system.redis.ttl(quota.key(OWNER)) > 0
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_count_of_a_period_older_than_every_record_is_deleted(system: System) -> None:
    """A process that is killed between the end of a task and its next report leaves such a count."""
    api = system.api(QUOTA_OPEN_TASKS="10")
    life_ms = 1000 * (24 + 25 + 1) * 3600
    old = f"{(int(time.time() * 1000) - life_ms) >> quota.PERIOD_BITS:07x}"
    system.redis.hset(quota.key(OWNER), old, 10)
    until(lambda: not system.redis.hexists(quota.key(OWNER), old))
    until(lambda: api.post("sleep").status_code == 202, RENEWED_S)


def test_killed_api_leaves_counts_too_low_and_never_too_high(system: System) -> None:
    """Tasks accepted in its last second are not counted; their ends make the count negative, which means zero."""
    api = system.api(QUOTA_OPEN_TASKS="10")
    ids = [api.accepted("sleep", f"killed-{number}") for number in range(5)]
    api.child.signal(signal.SIGKILL)
    other = system.api(QUOTA_OPEN_TASKS="10")
    system.worker()
    assert {other.ended(task_id)["task_status"] for task_id in ids} == {"SUCCESS"}
    until(lambda: open_tasks(system) <= 0)
    # the killed replica keeps its share of the quota until its registration expires
    until(lambda: other.batch(inputs(10)).status_code == 202, RENEWED_S + quotas.REPLICA_S)


def test_api_reports_its_accepted_tasks_before_it_ends(system: System) -> None:
    api = system.api()
    api.accepted("sleep")
    api.child.signal(signal.SIGTERM)
    until(lambda: not api.child.alive)
    assert open_tasks(system) == 1


def test_keys_and_quotas_are_read_from_a_file(system: System) -> None:
    path = system.folder / "keys.json"
    path.write_text(f'[{{"name": "tests", "key": "{system.key}", "open_tasks": 2, "tasks_per_s": 7}}]')
    api = system.api(API_KEYS="", API_KEYS_FILE=str(path))
    assert [api.post("sleep").status_code for _ in range(3)] == [202, 202, 429]
    assert api.post("sleep").json()["quota"] == {"tasks_per_s": 7, "open_tasks": 2, "exceeded": "open_tasks"}


def test_later_refusals_are_delayed(system: System) -> None:
    """Each connection of a client that ignores Retry-After then gets at most one refusal in two seconds."""
    api = system.api(QUOTA_OPEN_TASKS="1")
    api.accepted("sleep")

    def refusal_s(_: int) -> float:
        started_s = time.monotonic()
        assert api.post("sleep").status_code == 429
        return time.monotonic() - started_s

    with ThreadPoolExecutor(32) as threads:
        took_s = sorted(threads.map(refusal_s, range(32)))
    assert sum(each >= 0.5 * quotas.REFUSAL_DELAY_S for each in took_s) >= 32 - 2 * quotas.IMMEDIATE_MAX
