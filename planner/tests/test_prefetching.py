"""Workers that prefetch messages of each queue: waits are equal if nothing can be prefetched, and longer if it can."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_planner import manifests
from sluice_planner.prefetching import PrefetchingWorkers
from sluice_planner.workers import Workers
from tests.overlays import objects, outcome, workload
from tests.test_workers import PROPERTY, changes, seconds, tasks, uneven

Work = list[tuple[float, float]]


def load(workers: Workers, work: Work, queues: list[int]) -> None:
    came, service = (np.array(column, float) for column in zip(*work, strict=True)) if work else (np.empty(0),) * 2
    workers.load(came, service, np.array(queues, np.int64))


@PROPERTY
@given(tasks, changes)
def test_one_queue_needs_no_prefetched_messages(work: Work, plan: list[tuple[float, int]]) -> None:
    work = uneven(sorted(work, key=lambda task: task[0]))
    kinds = (Workers(1), PrefetchingWorkers(1))
    for workers in kinds:
        load(workers, work, [0] * len(work))
        workers.add(1, 0.0)
        for number, (at_s, count) in enumerate(sorted(plan)):
            workers.advance(at_s)
            for _ in range(count):
                workers.add(1, at_s + 1 + number * 0.000311)
        workers.advance(1e6)
    one, other = kinds
    assert other.waits.tasks == one.waits.tasks == len(work)
    assert other.waits.sum_s == pytest.approx(one.waits.sum_s)
    assert other.work_s(1e6) == pytest.approx(one.work_s(1e6))
    assert other.last_end_s == pytest.approx(one.last_end_s)


@PROPERTY
@given(tasks, changes, st.lists(seconds, max_size=10), st.integers(1, 3), st.integers(1, 3))
def test_no_task_is_lost(
    work: Work, plan: list[tuple[float, int]], looks: list[float], queues: int, prefetch: int
) -> None:
    work = sorted(work, key=lambda task: task[0])
    workers = PrefetchingWorkers(queues, prefetch=prefetch)
    load(workers, work, [number % queues for number in range(len(work))])
    pods = [workers.add(2, 0.0)]
    for at_s, count in sorted([*plan, *((at_s, -1) for at_s in looks)]):
        workers.advance(at_s)
        if count > 0:
            pods.append(workers.add(count, at_s))
        elif count == 0 and pods:
            workers.retire(pods.pop(), at_s, 3.0)
        tally = workers.tally(at_s)
        assert tally.arrived.sum() == sum(came <= at_s for came, _ in work)
        assert tally.arrived.sum() == tally.waiting.sum() + tally.running.sum() + tally.done
        assert tally.waiting.min() >= 0


def test_short_task_waits_behind_the_long_one_of_another_queue() -> None:
    """One pod runs a task of 20 s, and the broker sends a short task to this pod while the other pod is idle."""
    work, queues = [(0.0, 20.0), (1.0, 0.1), (2.0, 0.1), (3.0, 0.1)], [0, 1, 1, 1]
    held, free = PrefetchingWorkers(2), Workers(2)
    for workers in (held, free):
        load(workers, work, queues)
        workers.add(1, 0.0)
        workers.add(1, 0.0)
        workers.advance(math.inf)
    assert free.waits.max_s == 0.0
    # the broker sends to the pods in turn, so the pod of the long task gets one of the short tasks
    assert held.waits.max_s == pytest.approx(19.0, abs=2.0)


def test_more_prefetched_messages_wait_longer() -> None:
    generator = np.random.default_rng(3)
    came = np.cumsum(generator.exponential(1.0, 2000))
    service = generator.choice([0.1, 0.1, 0.1, 8.0], 2000)
    means = []
    for workers in (Workers(2), PrefetchingWorkers(2), PrefetchingWorkers(2, prefetch=4)):
        workers.load(came, service, np.arange(2000) % 2)
        for _ in range(4):
            workers.add(1, 0.0)
        workers.advance(math.inf)
        means.append(workers.waits.mean_s)
    assert means[0] < means[1] < means[2]


def test_option_simulates_such_pods() -> None:
    """With one queue, the outcome and the replicas are the same."""
    (found,) = manifests.workloads(objects(), manifests.Reading(prefetch_waits=True))
    assert found.pod.prefetch_waits
    outcomes = [outcome(each, "burst:100@10", "10") for each in (found, workload())]
    assert outcomes[0].done == outcomes[1].done == 100
    assert outcomes[0].samples == outcomes[1].samples
    assert outcomes[0].pod_hours == pytest.approx(outcomes[1].pod_hours)
