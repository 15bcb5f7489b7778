"""Which faults come when, by the seed alone. Between steps the nemesis waits until the system has recovered."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.faults import Fault


@dataclass(frozen=True)
class Planned:
    """One fault: `choice` in [0, 1) says which of the candidates it hits."""

    kind: str
    duration_s: float
    choice: float


@dataclass(frozen=True)
class Step:
    """A pause, and then one fault, or two of which the second begins `apart_s` after the first."""

    pause_s: float
    faults: tuple[Planned, ...]
    apart_s: float = 0.0


def schedule(seed: int, faults: Mapping[str, Fault], *, each: int, pairs: int) -> list[Step]:
    """Each kind so many times alone, and so many pairs of kinds that go together, in random order."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    alone = [(fault,) for fault in faults.values() for _ in range(each)]
    together = [_pair(chance, list(faults.values())) for _ in range(pairs)]
    steps = [
        Step(
            pause_s=round(chance.uniform(0.3, 1.2), 2),
            faults=tuple(_planned(chance, fault) for fault in chosen),
            apart_s=round(chance.uniform(0, 3), 2),
        )
        for chosen in [*alone, *together]
    ]
    chance.shuffle(steps)
    return steps


def _pair(chance: random.Random, faults: list[Fault]) -> tuple[Fault, ...]:
    first = chance.choice(faults)
    others = [fault for fault in faults if not fault.parts & first.parts]
    return first, chance.choice(others)


def _planned(chance: random.Random, fault: Fault) -> Planned:
    # mostly short: the fourth power of a number from 0 to 1 has its mean at a fifth
    span = chance.random() ** 4
    return Planned(fault.name, round(fault.min_s + span * (fault.max_s - fault.min_s), 2), chance.random())
