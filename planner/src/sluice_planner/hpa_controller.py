"""One sync of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2), as a pure function.

`step` takes the controller's settings, memory and observations, and returns its decision and its new memory. It follows
the controller of Kubernetes 1.36 to the edge of each window; tests/oracle runs that controller for comparison.
Times are integer nanoseconds, because windows are closed at one end and open at the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple

NS_PER_S = 1_000_000_000
INT32_MAX = 2**31 - 1


class Why(StrEnum):
    """The reason for a number of replicas."""

    WITHIN = "the metrics' recommendation"
    DISABLED = "at 0 replicas the HPA does nothing"
    ABOVE_MAX = "more than the maximum"
    BELOW_MIN = "fewer than the minimum"
    NO_METRIC = "no metric is available"
    PARTLY_NO_METRIC = "a metric is unavailable, so no replica is removed"
    TOO_MANY = "the maximum"
    TOO_FEW = "the minimum"
    UP_LIMIT = "the limit on scaling up"
    DOWN_LIMIT = "the limit on scaling down"


@dataclass(frozen=True)
class Policy:
    """Allows a change of so many pods, or so many percent, in a period."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True)
class Rules:
    """One direction of `behavior`. A window of None, only for `down`, is the cluster's downscale stabilization."""

    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"
    window_s: int | None = None
    tolerance: float | None = None

    @property
    def longest_period_s(self) -> int:
        return max((policy.period_s for policy in self.policies), default=0)


# The API's defaults for fields that a `behavior` leaves out.
UP_DEFAULT = Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), window_s=0)
DOWN_DEFAULT = Rules((Policy("Percent", 100, 15),))


@dataclass(frozen=True)
class Behavior:
    """`spec.behavior`, with defaults."""

    up: Rules = UP_DEFAULT
    down: Rules = DOWN_DEFAULT


@dataclass(frozen=True)
class Settings:
    """An HPA's spec and the controller's flags. A `behavior` of None means the legacy algorithm, not the defaults.

    `targets_milli` are the AverageValues of the metrics, in thousandths, in the order of the spec.
    """

    minimum: int
    maximum: int
    targets_milli: tuple[int, ...]
    behavior: Behavior | None = None
    tolerance: float = 0.1
    downscale_stabilization_s: float = 300


class Record(NamedTuple):
    """A recommendation or a change of replicas, with its time."""

    replicas: int
    at_ns: int


@dataclass(frozen=True)
class Memory:
    """The state that the controller keeps between syncs."""

    recommendations: tuple[Record, ...] = ()
    added: tuple[Record, ...] = ()
    removed: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Seen:
    """The input of a sync: desired and existing replicas, and each metric's total in thousandths (None: an error)."""

    now_ns: int
    spec_replicas: int
    status_replicas: int
    metrics_milli: Sequence[int | None]


@dataclass(frozen=True)
class Decision:
    """The replicas to set. If metrics were read: the proposal of each, the highest, and that after stabilization."""

    replicas: int
    why: Why
    proposals: tuple[int | None, ...] = ()
    wanted: int | None = None
    stabilized: int | None = None


def step(settings: Settings, memory: Memory | None, seen: Seen) -> tuple[Decision, Memory]:
    """Run one sync. A memory of None means that the controller sees this HPA for the first time."""
    current = seen.spec_replicas
    memory = memory or Memory(recommendations=(Record(current, seen.now_ns),))
    outside = _outside(settings, current)
    if outside is None:
        decision, memory = _by_metrics(settings, memory, seen)
    else:
        decision = outside
    if settings.behavior is not None and decision.replicas != current:
        memory = _remember_change(settings.behavior, memory, decision.replicas - current, seen.now_ns)
    return decision, memory


def _outside(settings: Settings, current: int) -> Decision | None:
    """At 0 the HPA is disabled; outside its bounds it sets the nearest bound at once, without metrics or limits."""
    if current == 0:
        return Decision(0, Why.DISABLED)
    if current > settings.maximum:
        return Decision(settings.maximum, Why.ABOVE_MAX)
    if current < settings.minimum:
        return Decision(settings.minimum, Why.BELOW_MIN)
    return None


def _by_metrics(settings: Settings, memory: Memory, seen: Seen) -> tuple[Decision, Memory]:
    proposals = tuple(
        _proposal(settings, milli, target, seen.status_replicas)
        for milli, target in zip(seen.metrics_milli, settings.targets_milli, strict=True)
    )
    valid = [proposal for proposal in proposals if proposal is not None]
    wanted = max(valid, default=0)
    if not valid:
        return Decision(seen.spec_replicas, Why.NO_METRIC, proposals), memory
    if len(valid) < len(proposals) and wanted < seen.spec_replicas:
        return Decision(seen.spec_replicas, Why.PARTLY_NO_METRIC, proposals, wanted), memory
    if settings.behavior is None:
        stabilized, memory = _stabilized_legacy(settings, memory, wanted, seen.now_ns)
        replicas, why = _limited_legacy(settings, seen.spec_replicas, stabilized)
    else:
        stabilized, memory = _stabilized(settings, settings.behavior, memory, wanted, seen)
        replicas, why = _limited(settings, settings.behavior, memory, stabilized, seen)
    return Decision(replicas, why, proposals, wanted, stabilized), memory


def _proposal(settings: Settings, milli: int | None, target_milli: int, replicas: int) -> int | None:
    """Replicas for one metric: the existing ones while the ratio is within tolerance, else total / target."""
    if milli is None:
        return None
    ratio = float(milli) / (float(target_milli) * replicas) if replicas else math.inf
    up, down = _tolerances(settings)
    if 1.0 - down <= ratio <= 1.0 + up:
        return replicas
    return min(math.ceil(float(milli) / float(target_milli)), INT32_MAX)


def _tolerances(settings: Settings) -> tuple[float, float]:
    rules = (settings.behavior.up, settings.behavior.down) if settings.behavior else (None, None)
    up, down = (each.tolerance if each else None for each in rules)
    return settings.tolerance if up is None else up, settings.tolerance if down is None else down


def _stabilized_legacy(settings: Settings, memory: Memory, wanted: int, now_ns: int) -> tuple[int, Memory]:
    """The highest recommendation of the window; one exactly as old as the window still counts."""
    cutoff = now_ns - round(settings.downscale_stabilization_s * NS_PER_S)
    recent = [record for record in memory.recommendations if record.at_ns >= cutoff]
    stabilized = max(wanted, *(record.replicas for record in recent), 0)
    return stabilized, replace(memory, recommendations=(*recent, Record(wanted, now_ns)))


def _limited_legacy(settings: Settings, current: int, stabilized: int) -> tuple[int, Why]:
    """Limit an increase to double the replicas, or 4."""
    up_limit = max(2 * current, 4)
    if stabilized < settings.minimum:
        return settings.minimum, Why.TOO_FEW
    if stabilized > min(settings.maximum, up_limit):
        return (up_limit, Why.UP_LIMIT) if settings.maximum > up_limit else (settings.maximum, Why.TOO_MANY)
    return stabilized, Why.WITHIN


def _stabilized(settings: Settings, behavior: Behavior, memory: Memory, wanted: int, seen: Seen) -> tuple[int, Memory]:
    """The current replicas, clamped between the lowest of the up window and the highest of the down window."""
    up_cutoff = seen.now_ns - (behavior.up.window_s or 0) * NS_PER_S
    # the controller truncates its flag to whole seconds here
    down_s = int(settings.downscale_stabilization_s) if behavior.down.window_s is None else behavior.down.window_s
    down_cutoff = seen.now_ns - down_s * NS_PER_S
    records = memory.recommendations
    lowest = min([wanted, *(record.replicas for record in records if record.at_ns > up_cutoff)])
    highest = max([wanted, *(record.replicas for record in records if record.at_ns > down_cutoff)])
    recent = [record for record in records if record.at_ns > min(up_cutoff, down_cutoff)]
    stabilized = min(max(seen.spec_replicas, lowest), highest)
    return stabilized, replace(memory, recommendations=(*recent, Record(wanted, seen.now_ns)))


def _limited(settings: Settings, behavior: Behavior, memory: Memory, stabilized: int, seen: Seen) -> tuple[int, Why]:
    """As far towards the stabilized recommendation as policies, minimum and maximum allow, and never away from it."""
    current = seen.spec_replicas
    if stabilized > current:
        limit = max(_up_limit(behavior.up, memory, current, seen.now_ns), current)
        if stabilized > min(settings.maximum, limit):
            return (limit, Why.UP_LIMIT) if settings.maximum > limit else (settings.maximum, Why.TOO_MANY)
    if stabilized < current:
        limit = min(_down_limit(behavior.down, memory, current, seen.now_ns), current)
        if stabilized < max(settings.minimum, limit):
            return (limit, Why.DOWN_LIMIT) if settings.minimum < limit else (settings.minimum, Why.TOO_FEW)
    return stabilized, Why.WITHIN


def _up_limit(rules: Rules, memory: Memory, current: int, now_ns: int) -> int:
    if rules.select == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(policy, memory, current, now_ns)
        percent = start * (1 + policy.value / 100)
        # rounded up, so that 10% of 3 pods can add one
        limits.append(_int32(start + policy.value) if policy.kind == "Pods" else _from_float(math.ceil(percent)))
    return min(limits) if rules.select == "Min" else max(limits)


def _down_limit(rules: Rules, memory: Memory, current: int, now_ns: int) -> int:
    if rules.select == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(policy, memory, current, now_ns)
        percent = start * (1 - policy.value / 100)
        limits.append(_int32(start - policy.value) if policy.kind == "Pods" else _from_float(int(percent)))
    # the smallest decrease leaves the most replicas
    return max(limits) if rules.select == "Min" else min(limits)


def _period_start(policy: Policy, memory: Memory, current: int, now_ns: int) -> int:
    """The replicas at the start of the policy's period. A change exactly one period old is outside the period."""
    cutoff = now_ns - policy.period_s * NS_PER_S
    added, removed = (
        sum(record.replicas for record in records if record.at_ns > cutoff)
        for records in (memory.added, memory.removed)
    )
    return current - added + removed


def _remember_change(behavior: Behavior, memory: Memory, change: int, now_ns: int) -> Memory:
    if change > 0:
        return replace(memory, added=_stored(memory.added, behavior.up, Record(change, now_ns)))
    return replace(memory, removed=_stored(memory.removed, behavior.down, Record(-change, now_ns)))


def _stored(records: tuple[Record, ...], rules: Rules, new: Record) -> tuple[Record, ...]:
    """Store the record in place of the last outdated one.

    A record is outdated after the longest period of its own direction. A change that the policies of the other
    direction would still count may be lost, as in the controller.
    """
    cutoff = new.at_ns - rules.longest_period_s * NS_PER_S
    outdated = [number for number, record in enumerate(records) if record.at_ns < cutoff]
    if not outdated:
        return (*records, new)
    return (*records[: outdated[-1]], new, *records[outdated[-1] + 1 :])


def _int32(number: int) -> int:
    """Wrap as the controller's 32-bit integers do: a policy of 2147483647 pods allows none."""
    return (number + 2**31) % 2**32 - 2**31


def _from_float(number: int) -> int:
    """Convert as amd64 converts a float to 32 bits: out of range becomes the lowest integer."""
    return number if -(2**31) <= number <= INT32_MAX else -(2**31)
