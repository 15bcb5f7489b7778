"""What is run: the whole of it, a quick part, and one for each protection, which shows what its absence does."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.chaos.faults import FAULTS
from tests.chaos.schedule import Planned, Step, schedule
from tests.chaos.world import Setup


@dataclass(frozen=True)
class Scenario:
    """One kind of run; `steps` answers a seed's."""

    name: str
    steps: Callable[[int], list[Step]]
    setup: Setup
    recovery_s: float = 20.0
    drain_s: float = 40.0


# Some tasks are always running, on nearly every process.
SLOW = Setup(per_s=16, work_s=0.45)
# They run yet when a client has sent again what it does not know the outcome of.
SLOWER = Setup(per_s=8, work_s=3.0, processes=10)


def _step(*faults: tuple[str, float], choice: float = 0.5) -> Step:
    return Step(1.0, tuple(Planned(kind, duration_s, choice) for kind, duration_s in faults), apart_s=1.0)


def _shown(name: str, *steps: Step, setup: Setup = SLOW) -> Scenario:
    """For a protection of the same name."""
    return Scenario(name, lambda _: list(steps), setup)


QUICK = (
    _step(("kill-child", 0)),
    _step(("silence-api", 3)),
    _step(("kill-leader", 2)),
    _step(("kill-unstored", 1)),
    _step(("restart-redis", 1)),
    _step(("kill-api", 1), ("kill-worker", 1)),
    _step(("kill-recorder", 1)),
    _step(("cut-node", 3)),
    _step(("reset-workers", 1), ("pause-redis", 2)),
    _step(("fill-queue", 2), ("crowd-redis", 2)),
    _step(("clock-step", 3), ("reset-api", 0)),
    _step(("unbind", 1)),
    _step(("memory-alarm", 2), ("fill-redis", 1)),
    _step(("part-node", 3)),
    _step(("restart-ours", 0)),
    _step(("lose-disk", 1)),
)

_ALL = (
    Scenario(
        "full",
        lambda seed: schedule(seed, FAULTS, each=4, pairs=24),
        Setup(nodes=3, newer=True, per_s=80, poison=0.0002),
        recovery_s=60,
        drain_s=300,
    ),
    Scenario(
        "each",
        lambda seed: schedule(seed, FAULTS, each=1, pairs=2),
        Setup(nodes=3, newer=True, per_s=60, poison=0.001, delivery_limit=5),
        recovery_s=45,
        drain_s=60,
    ),
    Scenario(
        "quick",
        lambda _: list(QUICK),
        Setup(nodes=3, newer=True, per_s=40, poison=0.001, delivery_limit=5),
        recovery_s=30,
        drain_s=60,
    ),
    _shown("confirms", _step(("silence-api", 4))),
    _shown("mandatory", _step(("unbind", 3))),
    _shown("late-acks", _step(("kill-worker", 1)), _step(("kill-worker", 1), choice=0.9)),
    _shown("reject-on-lost", *(_step(("kill-child", 0), choice=number / 6) for number in range(6))),
    _shown("retried-storing", _step(("restart-redis", 4))),
    _shown("recorder", _step(("kill-child", 0)), setup=replace(SLOW, poison=0.15, delivery_limit=1)),
    _shown("claim", _step(("pause-broker", 5)), _step(("pause-broker", 5)), setup=SLOWER),
    _shown(
        "end-guard",
        _step(("pause-worker", 10)),
        _step(("pause-worker", 10), choice=0.9),
        setup=replace(SLOW, heartbeat_s=2),
    ),
    _shown("quorum", _step(("lose-disk", 2), choice=0.0), setup=replace(SLOW, nodes=3, newer=True)),
    _shown("key-before-publish", _step(("pause-broker", 6)), _step(("kill-api", 1))),
    _shown("aof", _step(("restart-redis", 1))),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
