"""The order in which pods are removed, and the placement on nodes."""

from fractions import Fraction

import numpy as np

from sluice_planner.replica_set import Nodes, Pods
from sluice_planner.workers import Workers
from sluice_planner.workload import Pod

POD = Pod(concurrency=1, prefetch=1, cpu=Fraction(1), memory=Fraction(1), grace_s=30)


def busy(count: int, service_s: float) -> Workers:
    workers = Workers(1)
    workers.load(np.zeros(count), np.full(count, service_s), np.zeros(count, np.int64))
    return workers


def test_unready_pods_are_removed_first_then_the_latest_ready_ones() -> None:
    workers = busy(1, 1000.0)
    pods = Pods(POD, Nodes(), workers, 10.0)
    pods.scale(1, 0.0, start_s=0.0)
    workers.advance(5.0)
    pods.scale(3, 5.0)
    assert (pods.ready(5.0), pods.count) == (1, 3)
    pods.scale(2, 6.0)
    assert (pods.ready(6.0), pods.ready(16.0)) == (1, 2)
    pods.scale(1, 20.0)
    # the first pod still runs the only task, so no task was restarted
    workers.advance(100.0)
    assert (pods.ready(100.0), workers.killed, int(workers.tally(100.0).running[0])) == (1, 0, 1)


def test_pending_pods_are_removed_first() -> None:
    pods = Pods(POD, Nodes(((Fraction(1), Fraction(1)),)), Workers(1), 10.0)
    pods.scale(2, 0.0)
    assert pods.pending == 1
    pods.scale(1, 5.0)
    assert (pods.pending, pods.ending, pods.ready(10.0)) == (0, 0, 1)


def test_node_has_room_after_a_pod_has_ended() -> None:
    workers = busy(1, 25.0)
    nodes = Nodes(((Fraction(1), Fraction(1)),))
    first, second = (Pods(POD, nodes, workers, 0.0) for _ in range(2))
    first.scale(1, 0.0)
    workers.advance(10.0)
    second.scale(1, 10.0)
    first.scale(0, 10.0)
    for now_s, pending in ((20.0, 1), (26.0, 0)):
        first.tick(now_s)
        second.tick(now_s)
        assert second.pending == pending
    assert (first.seconds(50.0), second.seconds(50.0)) == (25.0, 24.0)
