"""Time series: values in steps between edges, which are times in seconds."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

# Samples are taken every second, and less often on a busy machine. RabbitMQ's figures may be 5 s old.
HELD_S = 5.0


def buckets(points: Iterable[tuple[float, float]], edges: Sequence[float]) -> list[list[float]]:
    """The values in each step. `points` are pairs (time, value)."""
    found: list[list[float]] = [[] for _ in edges[1:]]
    for at_s, value in points:
        place = bisect_left(edges, at_s) - 1
        if 0 <= place < len(found):
            found[place].append(value)
    return found


def held(points: Sequence[tuple[float, Any]], edges: Sequence[float]) -> list[Any]:
    """The last value before the end of each step; None if it is older than HELD_S."""
    found = []
    for edge_s in edges[1:]:
        place = bisect_right(points, edge_s, key=lambda point: point[0])
        fresh = place and edge_s - points[place - 1][0] <= HELD_S
        found.append(_rounded(points[place - 1][1]) if fresh else None)
    return found


def rates(points: Sequence[tuple[float, float]], edges: Sequence[float]) -> list[float | None]:
    """The increase of a counter per second in each step; None where the counter is unknown."""
    counts = [_at(points, edge_s) for edge_s in edges]
    return [
        None if before is None or after is None else round(max(0.0, after - before) / (end_s - begin_s), 3)
        for before, after, begin_s, end_s in zip(counts, counts[1:], edges, edges[1:], strict=False)
    ]


def changes(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points at which a counter has changed: kubelets repeat a value for many seconds."""
    return [point for before, point in pairwise(points) if point[1] != before[1]]


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def _at(points: Sequence[tuple[float, float]], at_s: float) -> float | None:
    """A counter interpolated between two samples; None before the first and after the last sample."""
    place = bisect_left(points, (at_s, -math.inf))
    if not 0 < place < len(points):
        return None
    (before_s, before), (after_s, after) = points[place - 1 : place + 1]
    return before + (after - before) * (at_s - before_s) / (after_s - before_s)
