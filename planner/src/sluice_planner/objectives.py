"""Objectives as people write them: `p95 wait < 60s`, `drain 30000 in 10m`."""

import re
from dataclasses import dataclass

from sluice_planner.durations import seconds, shown
from sluice_planner.fields import Wrong
from sluice_planner.simulation import Outcome

BURST_MAX = 10_000_000


@dataclass(frozen=True)
class Wait:
    """A percentile, the mean or the maximum of the waiting times is below a bound."""

    what: str
    bound_s: float

    def measured_s(self, outcome: Outcome) -> float:
        if self.what == "mean":
            return outcome.waits.mean_s
        if self.what == "max":
            return outcome.waits.max_s
        return outcome.waits.percentile_s(float(self.what.removeprefix("p")))

    def __str__(self) -> str:
        return f"{self.what} wait < {shown(self.bound_s)}"


@dataclass(frozen=True)
class Drain:
    """A burst of so many tasks, on top of the usual traffic, has left the queue within a bound."""

    tasks: int
    bound_s: float

    def __str__(self) -> str:
        return f"drain {self.tasks} in {shown(self.bound_s)}"


Objective = Wait | Drain


def read(text: str) -> Objective:
    """Parse an objective. Raises Wrong if it has neither form."""
    where = f"--slo {text!r}"
    if match := re.fullmatch(r"(p\d+(?:\.\d+)?|mean|max) wait <=? ?(.+)", text.strip()):
        if match[1].startswith("p") and not 0 < float(match[1][1:]) < 100:  # noqa: PLR2004 - a percentile
            raise Wrong(f"{where}: a percentile must be between 0 and 100")
        return Wait(match[1], _positive(match[2], where))
    if match := re.fullmatch(r"drain (\d+) in (.+)", text.strip()):
        if not 0 < int(match[1]) <= BURST_MAX:
            raise Wrong(f"{where}: must be between 1 and {BURST_MAX} tasks")
        return Drain(int(match[1]), _positive(match[2], where))
    raise Wrong(f"{where}: must read 'p95 wait < 60s' (or mean, max) or 'drain 30000 in 10m'")


def _positive(text: str, where: str) -> float:
    bound_s = seconds(text, where)
    if bound_s <= 0:
        raise Wrong(f"{where}: the time must be above 0")
    return bound_s
