"""Looks at the system while it is loaded."""

from dataclasses import replace
from typing import Protocol

from loadtest import system
from loadtest.ledger import Ledger
from loadtest.sample import Sample, Usage
from ops.command import Unusable


class Target(Protocol):
    """What tells of itself."""

    def sample(self) -> Sample:
        """As it is now. Unusable where it does not tell, Ended where there is nothing more to be told."""


class Sampler:
    """A look that fails is a gap in the charts; whether anything was lost, the end tells."""

    def __init__(self, target: Target) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self.missing: list[str] = []
        """When, and why."""
        self._target = target

    def look(self, at_s: float, _: Ledger, locust: Usage) -> None:
        """Once more; Locust's own usage comes with it."""
        try:
            sample = self._target.sample()
        except system.Ended:
            raise
        except Unusable as exc:
            self.missing.append(f"{at_s:.0f} s: {exc}")
        else:
            self.samples.append((at_s, replace(sample, usage={**sample.usage, "Locust": {"Locust": locust}})))
