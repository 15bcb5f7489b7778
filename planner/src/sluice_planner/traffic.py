"""Arrivals and service times of each queue: the same seed makes the same traffic on every overlay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sluice_planner.arrivals import Arrivals, Source
from sluice_planner.service_times import Service


@dataclass(frozen=True)
class Traffic:
    """Arrivals and service times by queue. A duration of None ends when all tasks are done and the pods are idle."""

    arrivals: Mapping[str, Sequence[Arrivals]]
    service: Mapping[str, Service]
    duration_s: float | None = None
    warm_up_s: float = 0.0
    seed: int = 1


class Feed:
    """The tasks of one queue, generated in order."""

    def __init__(self, arrivals: Sequence[Arrivals], service: Service, seed: np.random.SeedSequence) -> None:
        *sources, service_seed = seed.spawn(len(arrivals) + 1)
        self.arrivals = arrivals
        self._sources = [Source(each, np.random.default_rng(own)) for each, own in zip(arrivals, sources, strict=True)]
        self._service = service
        self._generator = np.random.default_rng(service_seed)

    def until(self, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """The next arrival times before `end_s`, and their service times."""
        parts = [source.until(end_s) for source in self._sources]
        times = parts[0] if len(parts) == 1 else np.sort(np.concatenate([np.empty(0), *parts]))
        return times, self._service.draw(self._generator, len(times))


def feeds(queues: Sequence[str], traffic: Traffic) -> list[Feed]:
    """A feed for each queue, with a seed of its own."""
    seeds = np.random.SeedSequence(traffic.seed).spawn(len(queues))
    return [
        Feed(traffic.arrivals.get(queue, ()), traffic.service[queue], own)
        for queue, own in zip(queues, seeds, strict=True)
    ]


def expected(arrivals: Sequence[Arrivals], from_s: float, until_s: float) -> float:
    """The expected number of tasks in a time span."""
    return sum(each.expected(until_s) - each.expected(from_s) for each in arrivals)
