"""Examples of the HPA's sync. The cases are those of Kubernetes' own tables, with other numbers."""

import pytest

from sluice_planner.hpa_controller import (
    NS_PER_S,
    Behavior,
    Decision,
    Memory,
    Policy,
    Record,
    Rules,
    Seen,
    Settings,
    Why,
    step,
)

NOW_S = 1000


def ago(replicas: int, age_s: int) -> Record:
    return Record(replicas, (NOW_S - age_s) * NS_PER_S)


def decided(settings: Settings, current: int, total: int | None, memory: Memory | None = None) -> Decision:
    """One sync at NOW_S. The existing replicas equal the desired ones."""
    memory = memory or Memory((ago(current, 3600),))
    return step(settings, memory, Seen(NOW_S * NS_PER_S, current, current, [total and total * 1000]))[0]


def settings(behavior: Behavior | None = None, minimum: int = 1, maximum: int = 100) -> Settings:
    return Settings(minimum, maximum, (1000,), behavior)


def up(*policies: Policy, select: str = "Max", window_s: int = 0) -> Behavior:
    return Behavior(up=Rules(policies, select, window_s))  # type: ignore[arg-type]


def down(*policies: Policy, select: str = "Max", window_s: int = 0) -> Behavior:
    return Behavior(down=Rules(policies, select, window_s))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "milli", "target_milli", "wanted"),
    [
        (5, 8600, 2867, 3),  # 0.6 of the target: scales down
        (3, 8600, 2900, 3),  # 0.99 of the target: within tolerance
        (3, 8600, 2500, 4),
        (10, 11000, 1000, 10),  # exactly 1.1 is within tolerance
        (10, 11001, 1000, 12),
        (10, 9000, 1000, 10),  # exactly 0.9 is within tolerance
        (10, 8999, 1000, 9),
        (10, 0, 1000, 0),
        (2, 1, 1000000, 1),
    ],
)
def test_average_value(current: int, milli: int, target_milli: int, wanted: int) -> None:
    decision, _ = step(Settings(1, 100, (target_milli,)), None, Seen(0, current, current, [milli]))
    assert decision.wanted == wanted


def test_tolerance_uses_existing_replicas_instead_of_desired_ones() -> None:
    decision, _ = step(settings(), None, Seen(0, 20, 10, [10500]))
    assert decision.wanted == 10


@pytest.mark.parametrize(
    ("current", "wanted", "replicas", "why"),
    [
        (2, 30, 4, Why.UP_LIMIT),
        (1, 30, 4, Why.UP_LIMIT),
        (3, 30, 6, Why.UP_LIMIT),
        (60, 500, 100, Why.TOO_MANY),
        (60, 70, 70, Why.WITHIN),
        (60, 2, 5, Why.TOO_FEW),
        (60, 6, 6, Why.WITHIN),
    ],
)
def test_legacy_limits(current: int, wanted: int, replicas: int, why: Why) -> None:
    decision = decided(settings(minimum=1 if current < 5 else 5), current, wanted)
    assert (decision.replicas, decision.why) == (replicas, why)


@pytest.mark.parametrize(("age_s", "replicas"), [(299, 9), (300, 9), (301, 3)])
def test_legacy_window_includes_its_start(age_s: int, replicas: int) -> None:
    assert decided(settings(), 10, 3, Memory((ago(9, age_s),))).replicas == replicas


@pytest.mark.parametrize(("age_s", "replicas"), [(59, 9), (60, 3), (61, 3)])
def test_behavior_window_excludes_its_start(age_s: int, replicas: int) -> None:
    behavior = down(Policy("Percent", 100, 15), window_s=60)
    assert decided(settings(behavior), 10, 3, Memory((ago(9, age_s),))).replicas == replicas


def test_scaling_up_uses_the_lowest_recommendation_of_the_window() -> None:
    behavior = up(Policy("Pods", 50, 15), window_s=60)
    assert decided(settings(behavior), 10, 30, Memory((ago(12, 59),))).replicas == 12
    assert decided(settings(behavior), 10, 30, Memory((ago(2, 59),))).replicas == 10


@pytest.mark.parametrize(
    ("behavior", "current", "wanted", "replicas"),
    [
        (Behavior(), 2, 99, 6),  # +4 beats +100%
        (Behavior(), 6, 99, 12),
        (up(Policy("Percent", 10, 15)), 3, 99, 4),  # rounded up; otherwise the replicas would not change
        (up(Policy("Pods", 5, 60), Policy("Percent", 100, 60)), 10, 99, 20),
        (up(Policy("Pods", 5, 60), Policy("Percent", 100, 60), select="Min"), 10, 99, 15),
        (up(Policy("Pods", 5, 60), select="Disabled"), 10, 99, 10),
        (up(Policy("Pods", 2147483647, 60)), 10, 99, 10),  # the controller's 32-bit integers wrap around
        (down(Policy("Pods", 4, 60)), 10, 1, 6),
        (down(Policy("Percent", 50, 60)), 7, 1, 3),  # rounded down
        (down(Policy("Percent", 10, 60)), 3, 1, 2),
        (down(Policy("Pods", 1, 60), Policy("Percent", 50, 60)), 10, 1, 5),
        (down(Policy("Pods", 1, 60), Policy("Percent", 50, 60), select="Min"), 10, 1, 9),
        (down(Policy("Pods", 1, 60), select="Disabled"), 10, 1, 10),
    ],
)
def test_policies(behavior: Behavior, current: int, wanted: int, replicas: int) -> None:
    assert decided(settings(behavior), current, wanted).replicas == replicas


@pytest.mark.parametrize(
    ("added", "removed", "replicas"),
    [
        ((ago(8, 30),), (), 10),  # 2 at the start of the period, 5 allowed, 8 added: no change in either direction
        ((ago(3, 30),), (), 12),
        ((ago(3, 60),), (), 15),  # exactly one period ago is outside the period
        ((), (ago(4, 30),), 19),  # removed pods may be added again in addition to the allowed ones
        ((ago(3, 30), ago(1, 10)), (ago(2, 5),), 13),
    ],
)
def test_changes_of_the_period_count(added: tuple[Record, ...], removed: tuple[Record, ...], replicas: int) -> None:
    memory = Memory((ago(10, 3600),), added, removed)
    assert decided(settings(up(Policy("Pods", 5, 60))), 10, 99, memory).replicas == replicas


def test_change_replaces_the_last_outdated_one() -> None:
    memory = Memory((ago(10, 3600),), (ago(1, 200), ago(2, 100), ago(3, 10)))
    _, after = step(settings(up(Policy("Pods", 5, 60))), memory, Seen(NOW_S * NS_PER_S, 10, 10, [99000]))
    assert after.added == (ago(1, 200), ago(2, 0), ago(3, 10))


@pytest.mark.parametrize(
    ("current", "replicas", "why"), [(0, 0, Why.DISABLED), (9, 5, Why.ABOVE_MAX), (1, 2, Why.BELOW_MIN)]
)
def test_replicas_outside_of_the_bounds_are_set_to_the_nearest_bound(current: int, replicas: int, why: Why) -> None:
    limited = settings(down(Policy("Pods", 1, 60), window_s=300), minimum=2, maximum=5)
    decision = decided(limited, current, 3)
    assert (decision.replicas, decision.why) == (replicas, why)


@pytest.mark.parametrize(
    ("totals", "replicas", "why"),
    [
        ([None, None], 10, Why.NO_METRIC),
        ([None, 5000], 10, Why.PARTLY_NO_METRIC),
        ([None, 15000], 15, Why.WITHIN),
        ([12000, 15000], 15, Why.WITHIN),
    ],
)
def test_metrics_that_fail(totals: list[int | None], replicas: int, why: Why) -> None:
    decision, memory = step(Settings(1, 100, (1000, 1000)), None, Seen(0, 10, 10, totals))
    assert (decision.replicas, decision.why) == (replicas, why)
    assert len(memory.recommendations) == (2 if why is Why.WITHIN else 1)
