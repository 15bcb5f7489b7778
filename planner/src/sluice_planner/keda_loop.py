"""KEDA's operator: it polls the queues, which alone scales to and from 0 or idle, and answers the HPA's requests.

Failures are counted as in the code of KEDA 2.21: both polls and requests count, and an answer from the cache counts
again. A fallback value that is read from the cache therefore resets the count.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sluice_planner.keda import Counts, Trigger, observe
from sluice_planner.workload import Fallback, Scaler

Read = Callable[[Trigger], Counts | None]
"""Asks the broker for a trigger's queue; None if it does not answer."""


@dataclass(frozen=True)
class Record:
    """The last observation of a trigger: the metric in thousandths (None: an error), and whether it is active."""

    milli: int | None
    active: bool = False
    fallback: bool = False


@dataclass(frozen=True)
class Move:
    """Replicas that KEDA sets itself."""

    replicas: int
    reason: str


class KedaLoop:
    """The operator's state for one ScaledObject that is created at time 0."""

    def __init__(self, scaler: Scaler) -> None:
        self._scaler = scaler
        self._cache: dict[str, Record] = {}
        self._failures = dict.fromkeys((trigger.name for trigger in scaler.triggers), 0)
        self._active_at_s: float | None = None

    def answer(self, trigger: Trigger, read: Read, replicas: int) -> Record:
        """Answer the HPA's request for a trigger's metric."""
        cached = self._cache.get(trigger.name) if trigger.cached else None
        raw = cached or _observed(trigger, read)
        return self._with_fallback(trigger, raw, replicas)

    def poll(self, now_s: float, read: Read, replicas: int) -> Move | None:
        """Run one round of the scale loop."""
        records = [self._with_fallback(each, _observed(each, read), replicas) for each in self._scaler.triggers]
        move = self._move(now_s, records, replicas)
        for trigger, record in zip(self._scaler.triggers, records, strict=True):
            if trigger.cached:
                self._cache[trigger.name] = record
        return move

    def _with_fallback(self, trigger: Trigger, raw: Record, replicas: int) -> Record:
        fallback = self._scaler.fallback
        # over AMQP the scaler cannot be built while the broker is away, so no failure is counted
        if fallback is None or (raw.milli is None and trigger.protocol == "amqp"):
            return raw
        if raw.milli is not None:
            self._failures[trigger.name] = 0
            return Record(raw.milli, raw.active)
        self._failures[trigger.name] += 1
        if self._failures[trigger.name] <= fallback.failures:
            return raw
        return Record(int(trigger.value * 1000 * _fallback_replicas(fallback, replicas)), fallback=True)

    def _move(self, now_s: float, records: list[Record], replicas: int) -> Move | None:
        scaler = self._scaler
        failed = any(record.milli is None for record in records)
        if any(record.active or record.fallback for record in records):
            if replicas == 0 or (scaler.idle is not None and replicas < scaler.minimum):
                self._active_at_s = now_s
                return Move(scaler.hpa_minimum, "KEDA sees messages and scales up from idle")
            if not failed:
                self._active_at_s = now_s
            return None
        if failed and (scaler.fallback is None or scaler.fallback.replicas != 0):
            return None
        resting = replicas > scaler.idle if scaler.idle is not None else scaler.minimum == 0 and replicas > 0
        if resting and self._cooled_down(now_s):
            return Move(scaler.rest, f"KEDA saw no messages for the cooldownPeriod of {scaler.cooldown_s} s")
        return None

    def _cooled_down(self, now_s: float) -> bool:
        if self._active_at_s is None:
            return now_s > self._scaler.initial_cooldown_s
        return now_s > self._active_at_s + self._scaler.cooldown_s


def _observed(trigger: Trigger, read: Read) -> Record:
    counts = read(trigger)
    return Record(None) if counts is None else Record(*observe(trigger, counts))


def _fallback_replicas(fallback: Fallback, replicas: int) -> int:
    if fallback.behavior == "currentReplicas":
        return replicas
    if fallback.behavior == "currentReplicasIfHigher":
        return max(replicas, fallback.replicas)
    if fallback.behavior == "currentReplicasIfLower":
        return min(replicas, fallback.replicas)
    return fallback.replicas
