"""No message waits in a busy worker while another worker is idle, and no queue starves."""

import random
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import kombu
import pytest
from redis import Redis

from apps.contract import ids, states
from apps.worker.prefetch import HAND_BACK_MAX
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS, thorough

TASKS = ("sleep", "sleep_elsewhere")
QUEUES = (WORK_QUEUE, "celery")
# A worker returns a waiting message after at most 0.2 s. The rest is a margin for a machine that runs other tests too.
BOUND_S = 1.5


def ended_well(system: System, api: Api, task_ids: list[str]) -> None:
    """Assert that every task ends as SUCCESS, and that the queues are empty."""
    for task_id in task_ids:
        assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: not any(system.depth_messages(queue) for queue in QUEUES), what="empty queues")
    assert system.depth_messages("dead") == 0


@POOLS
@pytest.mark.parametrize("first", ["held", *thorough("held_elsewhere")])
def test_short_tasks_start_immediately_in_an_idle_worker(system: System, pool: str, first: str) -> None:
    """A worker with one process must not keep a message of the second queue while a task of the first queue runs."""
    api = system.api()
    for _ in range(3):
        system.worker(WORKER_POOL=pool)
    second = "held_elsewhere" if first == "held" else "held"
    long = [api.accepted(first, "first"), api.accepted(second, "second")]
    until(lambda: system.effects("first", "begun") and system.effects("second", "begun"))
    for name in map(str, range(6)):  # a message in a busy worker would wait forever
        assert api.ended(api.accepted(TASKS[int(name) % 2], name))["task_status"] == "SUCCESS"
    system.release("first")
    system.release("second")
    ended_well(system, api, long)


@POOLS
def test_busy_worker_returns_its_waiting_messages(system: System, pool: str) -> None:
    """With several slots and prefetched messages per slot, all of them behind long tasks."""
    api = system.api()
    system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY="2", WORKER_PREFETCH="4")
    held = [api.accepted(task, f"held-{task}") for task in ("held", "held_elsewhere")]
    until(lambda: all(system.effects(f"held-{task}", "begun") for task in ("held", "held_elsewhere")))
    short = [api.accepted(task, "short") for task in TASKS * 4]
    system.worker(WORKER_POOL=pool)
    for task_id in short:
        assert api.ended(task_id)["task_status"] == "SUCCESS"
    for task in ("held", "held_elsewhere"):
        system.release(f"held-{task}")
    ended_well(system, api, held)


@POOLS
def test_no_queue_starves_and_the_planner_predicts_the_order(system: System, pool: str) -> None:
    """Both queues contain tasks longer than a tick of the prefetch timer, and one queue has twice as many."""
    import numpy as np  # noqa: PLC0415 - the planner's imports take 0.8 s, in each process that collects

    from sluice_planner.workers import Workers  # noqa: PLC0415

    api = system.api()
    counts, seconds = (12, 6), 0.3
    task_ids = [
        [api.accepted(task, "any", seconds=seconds) for _ in range(count)]
        for task, count in zip(TASKS, counts, strict=True)
    ]
    system.worker(WORKER_POOL=pool)
    ended_well(system, api, [*task_ids[0], *task_ids[1]])
    starts = sorted((_times(system, one)[1], queue) for queue, own in enumerate(task_ids) for one in own)
    model = Workers(2)
    model.load(np.zeros(sum(counts)), np.full(sum(counts), seconds), np.repeat([0, 1], counts))
    model.add(1, 0.0)
    for started in range(1, sum(counts)):
        model.advance((started - 0.5) * seconds)
        tally = model.tally((started - 0.5) * seconds)
        predicted = int(tally.arrived[1] - tally.waiting[1])
        # the broker chooses the queue of the first task
        assert abs(predicted - sum(queue for _, queue in starts[:started])) <= 1


def test_worker_subscribes_again_after_a_long_task(system: System) -> None:
    """Once its queues are empty, the worker has a consumer for each queue again."""
    api = system.api()
    system.worker()
    api.ended(api.accepted("sleep", "long", seconds=0.6))
    until(lambda: len(system.servers.rabbitmq.management(f"/api/consumers/{system.vhost}")) >= len(QUEUES))
    ended_well(system, api, [api.accepted(task, "short") for task in TASKS * 50])


@POOLS
def test_sigterm_returns_waiting_messages_to_the_queue(system: System, pool: str) -> None:
    """Otherwise a message of the second queue would wait for the end of the running task or of the grace period."""
    api = system.api()
    worker = system.worker(WORKER_POOL=pool, SOFT_SHUTDOWN_S="30")
    task_id = api.accepted("held", "runs")
    until(lambda: system.effects("runs", "begun") == 1)
    waits = api.accepted("sleep_elsewhere", "waits")
    worker.signal(signal.SIGTERM)
    system.worker(WORKER_POOL=pool)
    assert api.ended(waits, 20)["task_status"] == "SUCCESS"  # before the 30 s are over
    assert worker.alive
    system.release("runs")
    ended_well(system, api, [task_id])
    until(lambda: not worker.alive)
    assert worker.wait() == 0


@POOLS
def test_returned_messages_do_not_reach_the_delivery_limit(system: System, pool: str) -> None:
    """Each start of a long task may return a message. RabbitMQ 3.10 counts that, and drops a message at the limit."""
    system.define(delivery_limit=11)
    api = system.api()
    for _ in range(2):
        system.worker(WORKER_POOL=pool, WORKER_PREFETCH="2")
    task_ids = [api.accepted(random.choice(TASKS), "busy", seconds=0.25) for _ in range(40)]  # noqa: S311 - no secret
    ended_well(system, api, task_ids)
    assert system.effects("busy", "begun") == len(task_ids)


@POOLS
def test_message_near_its_delivery_limit_is_not_returned(system: System, pool: str) -> None:
    """RabbitMQ 3.10 would make it a dead letter after one more return."""
    system.define(delivery_limit=HAND_BACK_MAX)
    api = system.api()
    task_ids = [api.accepted("held", "first"), api.accepted("sleep", "kept")]
    with kombu.Connection(system.environment("worker")["CELERY_BROKER_URL"]) as connection:
        channel = connection.default_channel

        def taken() -> Any:
            return until(lambda: channel.basic_get(WORK_QUEUE))

        first, kept = taken(), taken()
        for _ in range(HAND_BACK_MAX - 1):
            channel.basic_reject(kept.delivery_tag, requeue=True)
            kept = taken()
        for message in (first, kept):
            channel.basic_reject(message.delivery_tag, requeue=True)
    worker = system.worker(WORKER_POOL=pool, WORKER_PREFETCH="2")
    until(lambda: system.effects("first", "begun") == 1)
    alive = Path(worker.env["LIVENESS_FILE"])
    for _ in range(2):  # touched every 0.5 s, after a check for late messages
        touched_ns = alive.stat().st_mtime_ns
        until(lambda touched_ns=touched_ns: alive.stat().st_mtime_ns > touched_ns)  # type: ignore[misc]
    system.release("first")
    ended_well(system, api, task_ids)


@pytest.mark.parametrize(
    ("pool", "workers", "places", "prefetch"),
    [("prefork", 3, 1, 1), *thorough(("prefork", 2, 2, 4), ("threads", 2, 4, 1))],
)
def test_no_message_waits_while_a_slot_is_free(
    system: System, pool: str, workers: int, places: int, prefetch: int
) -> None:
    """Bursts of short and long tasks in both queues, enough to occupy three quarters of the slots."""
    api = system.api()
    for _ in range(workers):
        system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY=str(places), WORKER_PREFETCH=str(prefetch))
    task_ids = list(_posted(api, per_s=workers * places, duration_s=8))
    ended_well(system, api, task_ids)
    runs = [_times(system, task_id) for task_id in task_ids]
    assert _longest_needless_wait_s(runs, workers * places) < BOUND_S


@POOLS
def test_no_task_is_lost_when_workers_are_killed(system: System, pool: str) -> None:
    api = system.api()
    workers = [system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY="2") for _ in range(2)]
    task_ids = []
    for _ in range(3):
        task_ids += list(_posted(api, per_s=4, duration_s=2))
        workers.pop(0).kill()
        workers.append(system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY="2"))
    ended_well(system, api, task_ids)


def _posted(api: Api, *, per_s: float, duration_s: float) -> Iterator[str]:
    """Post tasks to both queues in bursts; yields their ids."""
    chance = random.Random(1)  # noqa: S311 - same bursts in each run
    began_s, due_s = time.monotonic(), 0.0
    while due_s < duration_s:
        until(lambda due_s=due_s: time.monotonic() - began_s >= due_s)  # type: ignore[misc]
        for _ in range(chance.choice([1, 1, 1, 6])):
            seconds = chance.choice([0, 0, 0.05, 0.3, 1, 1.5])
            yield api.accepted(chance.choice(TASKS), "any", seconds=seconds)
            due_s += chance.expovariate(per_s / 0.6)


def _times(system: System, task_id: str) -> tuple[float, float, float]:
    """Return the Unix times at which a task was accepted, started and ended."""
    with Redis.from_url(system.servers.redis.url()) as client:
        record = client.get(states.key(task_id))
    started_s, ended_s = (int.from_bytes(record[start : start + 6]) / 1000 for start in (3, 9))
    return ids.created_at_s(task_id), started_s, ended_s


def _longest_needless_wait_s(runs: list[tuple[float, float, float]], places: int) -> float:
    """Return the longest time that a task waited while fewer tasks ran than there are slots."""
    changes = sorted([(started, 1) for _, started, _ in runs] + [(ended, -1) for _, _, ended in runs])
    running, idle = 0, [(0.0, changes[0][0])]
    for (at_s, change), (next_s, _) in pairwise(changes):
        running += change
        if running < places:
            joined = bool(idle) and idle[-1][1] == at_s
            idle[-1:] = [(idle[-1][0], next_s)] if joined else [*idle[-1:], (at_s, next_s)]
    return max(min(started, to) - max(came, since) for came, started, _ in runs for since, to in idle)
