"""Samples the system during the load."""

from dataclasses import replace
from typing import Protocol

from loadtest import system
from loadtest.ledger import Ledger
from loadtest.sample import Sample, Usage
from ops.command import Unusable


class Target(Protocol):
    """A system that can be sampled."""

    def sample(self) -> Sample:
        """The current sample. Raises Unusable if it cannot be read, and Ended if the system has ended."""


class Sampler:
    """Collects samples. A failed sample is only a gap in the charts: lost tasks are detected at the end of the run."""

    def __init__(self, target: Target) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self.missing: list[str] = []
        """Time and reason of each failed sample."""
        self._target = target

    def look(self, at_s: float, _: Ledger, locust: Usage) -> None:
        """Take a sample, and add Locust's usage to it. Raises Ended if the system has ended."""
        try:
            sample = self._target.sample()
        except system.Ended:
            raise
        except Unusable as exc:
            self.missing.append(f"{at_s:.0f} s: {exc}")
        else:
            self.samples.append((at_s, replace(sample, usage={**sample.usage, "Locust": {"Locust": locust}})))
