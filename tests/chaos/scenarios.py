"""The scenarios: the full run, a quick run, and one per protection, which shows the effect of its absence."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from apps.contract.settings import ApiSettings
from tests.chaos import attacks, versions  # noqa: F401 - registers their faults
from tests.chaos.bounds import Bound
from tests.chaos.faults import FAULTS
from tests.chaos.schedule import Planned, Step, schedule
from tests.chaos.world import Setup


@dataclass(frozen=True)
class Scenario:
    """A kind of run; `steps` returns the steps for a seed."""

    name: str
    steps: Callable[[int], list[Step]]
    setup: Setup
    recovery_s: float = 20.0
    drain_s: float = 40.0
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    """Bounds on the effects for clients, per kind of fault."""


# With these numbers, nearly every process always runs a task.
SLOW = Setup(per_s=16, work_s=0.45)
# So long that tasks still run when a client repeats a post with an unknown outcome.
SLOWER = Setup(per_s=8, work_s=3.0, processes=10)


def _step(*faults: tuple[str, float], choice: float = 0.5) -> Step:
    return Step(1.0, tuple(Planned(kind, duration_s, choice) for kind, duration_s in faults), apart_s=1.0)


def _shown(name: str, *steps: Step, setup: Setup = SLOW) -> Scenario:
    """A scenario for the protection of the same name."""
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
    _step(("greedy-client", 2)),
    _step(("malformed-messages", 0)),
    _step(("silent-redis", 2)),
    _step(("old-api", 2)),
    _step(("old-worker", 3)),
)

# On two busy cores an ordinary answer takes up to 0.1 s, and a result up to 0.5 s.
ORDINARY = Bound(answer_p95_s=1.0, answer_max_s=5.0, result_p95_s=3.0, result_max_s=15.0)
UNSURE = frozenset({"refused", "outcome-unknown"})
# Status 0: a client gave up. If it repeats the post, the first request may still be open.
KEYED = frozenset({"refused", "request-open", "status 0"})
DEADLINE_S = float(ApiSettings.model_fields["publish_deadline_s"].default)
# Duration of a server's silence, and the time until a worker has reconnected.
SILENT_S, RECONNECTED_S = 12.0, 15.0


def _abuse(seconds: float, silent_s: float) -> list[Step]:
    """Each attack alone, and the silent servers last."""
    return [
        *(_step((kind, seconds)) for kind in ABUSE if kind not in SILENT),
        *(_step((kind, silent_s)) for kind in SILENT),
    ]


SILENT = ("pause-broker", "pause-redis", "silent-redis")
ABUSE: dict[str, Bound] = {
    "slow-heads": ORDINARY,
    "slow-bodies": ORDINARY,
    "many-streams": ORDINARY,
    "heavy-bodies": ORDINARY,
    # the thousand tasks that its quota admits at once are in the queue before those of other clients
    "greedy-client": replace(ORDINARY, result_p95_s=10.0),
    "malformed-messages": ORDINARY,
    # each post is answered at the publish deadline, with the outcome refused or unknown
    "pause-broker": Bound(DEADLINE_S + 1, DEADLINE_S + 3, math.inf, SILENT_S + RECONNECTED_S, UNSURE),
    # a post without a key needs no Redis, and one with a key is refused in time
    "pause-redis": Bound(DEADLINE_S + 1, DEADLINE_S + 3, math.inf, SILENT_S + RECONNECTED_S, KEYED),
    "silent-redis": Bound(DEADLINE_S + 1, DEADLINE_S + 3, math.inf, SILENT_S + RECONNECTED_S, KEYED),
}
# Four times as much for CI machines, which do other work too: attacks without bounds cost far more.
SHARED = {
    kind: replace(
        bound,
        answer_p95_s=4 * bound.answer_p95_s,
        answer_max_s=4 * bound.answer_max_s,
        result_p95_s=4 * bound.result_p95_s,
        result_max_s=4 * bound.result_max_s,
    )
    for kind, bound in ABUSE.items()
}
# Short tasks, many of them followed: this measures the delivery of results and not the tasks.
ATTACKED = Setup(per_s=24, work_s=0.02, processes=2, followed=0.5)

_ALL = (
    Scenario("abuse", lambda _: _abuse(9, SILENT_S), ATTACKED, bounds=ABUSE),
    Scenario("abuse-quick", lambda _: _abuse(3, 4), ATTACKED, recovery_s=15, bounds=SHARED),
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
    _shown("neighbours", _step(("old-api", 4)), _step(("old-worker", 4))),
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
