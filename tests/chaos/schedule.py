"""Generates a schedule of faults from a seed. Between steps the nemesis waits until the system has recovered."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.chaos.faults import Fault

# The first of two faults lasts at least this long after the second one begins.
TOGETHER_S = 1.0


@dataclass(frozen=True)
class Planned:
    """A planned fault: `choice` in [0, 1) selects its target."""

    kind: str
    duration_s: float
    choice: float


@dataclass(frozen=True)
class Step:
    """A pause followed by one or two faults; the second begins `apart_s` after the first."""

    pause_s: float
    faults: tuple[Planned, ...]
    apart_s: float = 0.0


def schedule(seed: int, faults: Mapping[str, Fault], *, each: int, pairs: int) -> list[Step]:
    """Plan each kind of fault `each` times alone, and `pairs` pairs of compatible kinds, in random order.

    Alone, the durations of a kind are spread evenly over its range; in pairs most durations are short.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable
    alone = [
        Step(_pause_s(chance), (_planned(chance, fault, (turn + chance.random()) / each),))
        for fault in faults.values()
        for turn in range(each)
    ]
    steps = [*alone, *(_pair(chance, list(faults.values())) for _ in range(pairs))]
    chance.shuffle(steps)
    return steps


def _pair(chance: random.Random, faults: list[Fault]) -> Step:
    first = chance.choice(faults)
    second = chance.choice([fault for fault in faults if not fault.parts & first.parts])
    apart_s = round(chance.uniform(0, 3), 2)
    # the fourth power of a uniform number in [0, 1) has a mean of 1/5
    one, other = (_planned(chance, fault, chance.random() ** 4) for fault in (first, second))
    one = replace(one, duration_s=max(one.duration_s, round(apart_s + TOGETHER_S, 2)))
    return Step(_pause_s(chance), (one, other), apart_s)


def _pause_s(chance: random.Random) -> float:
    return round(chance.uniform(0.3, 1.2), 2)


def _planned(chance: random.Random, fault: Fault, span: float) -> Planned:
    return Planned(fault.name, round(fault.min_s + span * (fault.max_s - fault.min_s), 2), chance.random())
