"""Predicts a recorded burst and compares: two times, and the mean error of the curve.

The recording does not show where in the HPA's period the burst started. The prediction is therefore the mean of several
simulations with other phases, and their range is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sluice_planner import arrivals
from sluice_planner.cluster_settings import Cluster
from sluice_planner.curve import Curve, Point
from sluice_planner.fields import Wrong
from sluice_planner.service_times import Service
from sluice_planner.simulation import Outcome, Sample, simulate
from sluice_planner.traffic import Traffic
from sluice_planner.workload import Workload

PHASES = 10
# the allowed relative error; at least one sync and one poll are allowed
RELATIVE = 0.15

Times = list[float | None]


@dataclass(frozen=True)
class Compared:
    """A measured and a predicted time, in seconds after the first arrival. None: it was never reached."""

    words: str
    measured_s: float | None
    predicted_s: Times
    allowed_s: float

    @property
    def mean_s(self) -> float | None:
        known = [each for each in self.predicted_s if each is not None]
        return None if len(known) < len(self.predicted_s) else sum(known) / len(known)

    @property
    def good(self) -> bool:
        """Whether the error is within the allowed one, or both times were never reached."""
        if self.measured_s is None or self.mean_s is None:
            return self.measured_s is None and not [each for each in self.predicted_s if each is not None]
        return abs(self.mean_s - self.measured_s) <= self.allowed_s


@dataclass(frozen=True)
class Replayed:
    """The comparison: two times, the mean error of the depth (of its peak) and of ready replicas (of the maximum)."""

    times: tuple[Compared, ...]
    depth_error: float
    ready_error: float
    outcome: Outcome
    shift_s: float


def settle(workload: Workload, curve: Curve) -> Workload:
    """The overlay's workload with the numbers of the recording."""
    scaler = workload.scaler
    triggers = scaler.triggers
    if curve.value is not None:
        triggers = tuple(replace(each, value=curve.value) for each in triggers)
    minimum = scaler.minimum if curve.minimum is None else curve.minimum
    maximum = scaler.maximum if curve.maximum is None else curve.maximum
    if max(minimum, 1) > maximum:
        raise Wrong(
            f"{workload.where}: with the recording's numbers the minimum {minimum} is above the maximum {maximum}"
        )
    return replace(workload, scaler=replace(scaler, minimum=minimum, maximum=maximum, triggers=triggers))


def replay(workload: Workload, curve: Curve, service: Service, cluster: Cluster) -> Replayed:
    """Predict the curve for a workload that `settle` has returned."""
    scaler = workload.scaler
    runs = []
    for phase in range(PHASES):
        shift_s = cluster.sync_s * (phase + 0.5) / PHASES
        came = [arrivals.burst(count, at_s + shift_s) for at_s, count in curve.arrivals if count]
        end_s = curve.points[-1].at_s + shift_s
        traffic = Traffic({workload.queues[0]: came}, dict.fromkeys(workload.queues, service), end_s)
        (outcome,) = simulate([workload], traffic, replace(cluster, initial_replicas=round(curve.points[0].desired)))
        runs.append((shift_s, outcome))
    slack_s = cluster.sync_s + scaler.poll_s

    def after(get: Callable[[Outcome], float | None]) -> Times:
        """A time of each run, counted from the first arrival."""
        found = ((shift_s, get(outcome)) for shift_s, outcome in runs)
        return [None if at_s is None else at_s - shift_s - curve.start_s for shift_s, at_s in found]

    measured = _Measured(curve)
    reached, drained = measured.reached(scaler.maximum), measured.drained()
    times = (
        Compared("maximum ready", reached, after(lambda outcome: outcome.max_reached_s), _allowed_s(reached, slack_s)),
        Compared("queue empty", drained, after(_empty_s), _allowed_s(drained, slack_s)),
    )
    depth, ready = np.mean([_errors(curve, *run, scaler.maximum) for run in runs], axis=0)
    middle = runs[PHASES // 2]
    return Replayed(times, float(depth), float(ready), middle[1], middle[0])


class _Measured:
    """The recording's times, counted from the first arrival."""

    def __init__(self, curve: Curve) -> None:
        self._start_s = curve.start_s
        self._points: Sequence[Point] = curve.points

    def reached(self, maximum: int) -> float | None:
        return next((point.at_s - self._start_s for point in self._points if point.ready >= maximum), None)

    def drained(self) -> float | None:
        """The first empty sample after the peak."""
        highest = max(self._points, key=lambda point: point.depth)
        after = (point for point in self._points if point.at_s > highest.at_s and point.depth == 0)
        return next((point.at_s - self._start_s for point in after), None)


def _allowed_s(measured_s: float | None, slack_s: float) -> float:
    return max(slack_s, RELATIVE * (measured_s or 0.0))


def _empty_s(outcome: Outcome) -> float | None:
    """The end of the last task; None if tasks are left."""
    return outcome.last_end_s if outcome.done == outcome.arrived else None


def _errors(curve: Curve, shift_s: float, outcome: Outcome, maximum: int) -> tuple[float, float]:
    """The mean absolute errors of depth and ready replicas, as shares of the peak depth and of the maximum."""
    times = [sample.at_s - shift_s for sample in outcome.samples]
    at_s = [point.at_s for point in curve.points]

    def predicted(of: Callable[[Sample], float]) -> np.ndarray:
        return np.interp(at_s, times, [of(sample) for sample in outcome.samples])

    depth = predicted(lambda sample: sample.waiting + sample.running) - [point.depth for point in curve.points]
    ready = predicted(lambda sample: sample.ready) - [point.ready for point in curve.points]
    highest = max(point.depth for point in curve.points) or 1.0
    return float(np.mean(np.abs(depth))) / highest, float(np.mean(np.abs(ready))) / maximum
