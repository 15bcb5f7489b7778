"""The schedule of the control loops: all syncs, and the polls and samples that a decision reads, in order of time.

At the same time the management API samples first, then KEDA polls, then the HPA syncs.
"""

import heapq
import math
from collections.abc import Iterator
from enum import IntEnum
from itertools import count

from sluice_planner.cluster_settings import Cluster
from sluice_planner.workload import Scaler

# tolerance for a quotient of two times that should be a whole number
CLOSE = 1e-9


class Loop(IntEnum):
    """The loops, in the order in which they run at the same time."""

    SAMPLE = 0
    POLL = 1
    SYNC = 2


Moment = tuple[float, Loop]


def moments(scaler: Scaler, cluster: Cluster) -> Iterator[Moment]:
    """The endless sequence of runs."""
    loops: list[Iterator[Moment]] = [((at_s, Loop.SYNC) for at_s in _syncs(cluster))]
    if scaler.polls:
        loops.append((at_s, Loop.POLL) for at_s in _polls(scaler, cluster))
    if any(trigger.protocol == "http" for trigger in scaler.triggers):
        loops.append((at_s, Loop.SAMPLE) for at_s in _samples(scaler, cluster))
    return heapq.merge(*loops)


def _syncs(cluster: Cluster) -> Iterator[float]:
    return (number * cluster.sync_s for number in count(1))


def _polls(scaler: Scaler, cluster: Cluster) -> Iterator[float]:
    """All polls if KEDA scales by itself or counts failures; else the last before each sync, which fills the cache."""
    if scaler.minimum == 0 or scaler.idle is not None or cluster.metrics_down_s:
        return (number * float(scaler.poll_s) for number in count())
    return _distinct(_whole(at_s, scaler.poll_s) for at_s in _syncs(cluster))


def _samples(scaler: Scaler, cluster: Cluster) -> Iterator[float]:
    """The samples that a poll or a sync reads; for rates the one before each, too."""
    readings = []
    if scaler.polls:
        readings.append(_polls(scaler, cluster))
    if not all(trigger.cached for trigger in scaler.triggers):
        readings.append(_syncs(cluster))
    back = (1, 0) if any(trigger.mode != "QueueLength" for trigger in scaler.triggers) else (0,)
    seen = (
        _whole(at_s - cluster.stats_lag_s, cluster.stats_interval_s) - steps * cluster.stats_interval_s
        for at_s in heapq.merge(*readings)
        for steps in back
    )
    return _distinct(at_s for at_s in seen if at_s >= 0)


def _whole(at_s: float, period_s: float) -> float:
    """The last multiple of the period at or before a time."""
    return math.floor(at_s / period_s + CLOSE) * period_s


def _distinct(times: Iterator[float]) -> Iterator[float]:
    last_s = -math.inf
    for at_s in times:
        if at_s > last_s:
            last_s = at_s
            yield at_s
