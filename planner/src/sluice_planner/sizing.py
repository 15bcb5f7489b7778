"""Finds value, minimum, maximum and behavior with the fewest pod-hours that meet the objectives.

Every candidate gets the same traffic, in replications that differ in the seed and in the phase of a burst within the
HPA's period. It meets an objective if the upper end of the 95% confidence interval of the mean does.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context

from sluice_planner.arrivals import burst
from sluice_planner.cluster_settings import Cluster
from sluice_planner.durations import shown
from sluice_planner.fields import Wrong
from sluice_planner.hpa_controller import Behavior, Policy, Rules
from sluice_planner.objectives import Drain, Objective, Wait
from sluice_planner.replications import Mean, mean
from sluice_planner.simulation import Outcome, simulate
from sluice_planner.traffic import Traffic
from sluice_planner.workload import Workload

# tasks in the queue per task slot: below 1 leaves pods idle, above it lets tasks wait
LOADS = (0.7, 1, 1.5, 2, 4, 10, 40, 200)
# a run that misses an objective by this factor ends the trial
HOPELESS = 1.5
# the burst starts when the usual traffic has settled
SETTLED_S = 900.0
# a drain is simulated for this multiple of its bound
PATIENCE = 3

# behaviors to try besides the overlay's: up at once, down slowly or soon
BEHAVIORS = {
    "up at once, down by half a minute after 300 s": Behavior(
        Rules((Policy("Percent", 900, 15), Policy("Pods", 100, 15)), window_s=0),
        Rules((Policy("Percent", 50, 60),), window_s=300),
    ),
    "up at once, down by half a minute after 60 s": Behavior(
        Rules((Policy("Percent", 900, 15), Policy("Pods", 100, 15)), window_s=0),
        Rules((Policy("Percent", 50, 60),), window_s=60),
    ),
}


@dataclass(frozen=True)
class Candidate:
    """Numbers for the ScaledObject. `behavior` is a key of BEHAVIORS; None keeps the overlay's."""

    value: float
    minimum: int
    maximum: int
    behavior: str | None

    def applied(self, workload: Workload, queues: Sequence[str]) -> Workload:
        """The workload with these numbers on the triggers of these queues."""
        scaler = workload.scaler
        triggers = tuple(replace(each, value=self.value) if each.queue in queues else each for each in scaler.triggers)
        behavior = scaler.behavior if self.behavior is None else BEHAVIORS[self.behavior]
        idle = scaler.idle if scaler.idle is not None and scaler.idle < self.minimum else None
        changed = replace(
            scaler, minimum=self.minimum, maximum=self.maximum, triggers=triggers, behavior=behavior, idle=idle
        )
        return replace(workload, scaler=changed)


@dataclass(frozen=True)
class Trial:
    """A candidate's result: pod-hours and, in the order of the objectives, the measured seconds of each."""

    candidate: Candidate
    pod_hours: Mean
    measured_s: tuple[Mean, ...]

    def meets(self, objectives: Sequence[Objective]) -> bool:
        """Whether the confidence intervals of all objectives are within their bounds."""
        return all(each.upper <= one.bound_s for each, one in zip(self.measured_s, objectives, strict=True))


@dataclass(frozen=True)
class Question:
    """The workload to size, its traffic, cluster and objectives, and the effort of the search."""

    workload: Workload
    traffic: Traffic
    cluster: Cluster
    objectives: tuple[Objective, ...]
    replications: int
    most_pods: int

    @property
    def queues(self) -> list[str]:
        """The queues with arrivals."""
        return [queue for queue, parts in self.traffic.arrivals.items() if parts]

    @property
    def rate(self) -> float:
        """Tasks per second, on average."""
        return self._expected() / (self.traffic.duration_s or 1.0)

    @property
    def work_s(self) -> float:
        """The mean service time."""
        parts = {
            queue: sum(each.expected(self.traffic.duration_s or 0.0) for each in self.traffic.arrivals[queue])
            for queue in self.queues
        }
        return sum(self.traffic.service[queue].mean_s * part for queue, part in parts.items()) / sum(parts.values())

    def _expected(self) -> float:
        come = (each for parts in self.traffic.arrivals.values() for each in parts)
        return sum(each.expected(self.traffic.duration_s or 0.0) for each in come)


def check(question: Question) -> None:
    """Raises Wrong if the traffic or a trigger cannot be sized."""
    if question.traffic.duration_s is None:
        raise Wrong(
            "--arrivals: must be without end, such as 20/s, or --duration must be set; --slo 'drain ...' adds a burst"
        )
    for trigger in question.workload.scaler.triggers:
        if trigger.queue in question.queues and trigger.mode != "QueueLength":
            raise Wrong(f"{question.workload.where}: trigger {trigger.name}: only mode QueueLength can be sized")


def candidates(question: Question) -> list[Candidate]:
    """The overlay's numbers first, a grid around the needs of the traffic, and the strongest candidate last."""
    scaler, slots = question.workload.scaler, question.workload.pod.concurrency
    busy = max(1, math.ceil(question.rate * question.work_s / slots))
    needed = [pods_needed(question, each) for each in question.objectives if isinstance(each, Drain)]
    least = min(max([math.ceil(1.1 * busy), *needed]), question.most_pods)
    maxima = sorted({min(math.ceil(least * factor), question.most_pods) for factor in (1, 1.5, 3)})
    minima = sorted({min(each, maxima[0]) for each in (1, scaler.minimum or 1, math.ceil(busy / 2), busy)})
    values = [float(f"{load * slots:.3g}") for load in LOADS]
    own = next(each.value for each in scaler.triggers if each.queue in question.queues)
    found = [Candidate(own, scaler.minimum, scaler.maximum, None)]
    found += [
        Candidate(value, minimum, maximum, behavior)
        for value, minimum, maximum, behavior in product(values, minima, maxima, BEHAVIORS)
    ]
    return [*found, Candidate(values[0], question.most_pods, question.most_pods, None)]


def pods_needed(question: Question, drain: Drain) -> int:
    """The pods that just meet the objective if all of them run from the first second."""
    rate = drain.tasks / drain.bound_s + question.rate
    return math.ceil(rate * question.work_s / question.workload.pod.concurrency)


def trials(question: Question, found: Sequence[Candidate]) -> Iterator[Trial]:
    """Try each candidate, on all cores."""
    workers = min(os.cpu_count() or 1, len(found))
    if workers == 1:
        yield from map(partial(trial, question), found)
        return
    # spawn: forking is not safe if the caller has threads
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(partial(trial, question), found, chunksize=4)


def trial(question: Question, candidate: Candidate) -> Trial:
    """Simulate replications of a candidate; stop early if it clearly misses an objective."""
    workload = candidate.applied(question.workload, question.queues)
    hours: list[float] = []
    measured: list[list[float]] = []
    for number in range(question.replications):
        traffic = replace(question.traffic, seed=question.traffic.seed + number)
        outcome = _usual(workload, traffic, question.cluster)
        hours.append(outcome.pod_hours)
        measured.append(
            [
                one.measured_s(outcome)
                if isinstance(one, Wait)
                else _drained_s(question, one, workload, traffic, number)
                for one in question.objectives
            ]
        )
        if any(each > HOPELESS * one.bound_s for each, one in zip(measured[-1], question.objectives, strict=True)):
            break
    return Trial(candidate, mean(hours), tuple(mean(each) for each in zip(*measured, strict=True)))


def _usual(workload: Workload, traffic: Traffic, cluster: Cluster) -> Outcome:
    (outcome,) = simulate([workload], traffic, cluster)
    return outcome


def _drained_s(question: Question, drain: Drain, workload: Workload, traffic: Traffic, number: int) -> float:
    """The time to drain the burst on top of the usual traffic; infinite if it is not drained in the simulated time."""
    # the phases of the replications are evenly distributed over the HPA's period
    at_s = SETTLED_S + question.cluster.sync_s * (number + 0.5) / question.replications
    queue = question.queues[0]
    arrivals = {**traffic.arrivals, queue: [*traffic.arrivals[queue], burst(drain.tasks, at_s)]}
    end_s = at_s + PATIENCE * drain.bound_s
    outcome = _usual(workload, replace(traffic, arrivals=arrivals, duration_s=end_s), question.cluster)
    drained_s = math.inf if outcome.drained_s is None else outcome.drained_s - at_s
    return drained_s if drained_s >= 0 else math.inf


def unreachable(question: Question, strongest: Trial) -> list[str]:
    """Sentences that say why the strongest candidate, the most pods all the time, does not meet the objectives."""
    reasons = []
    for one, measured in zip(question.objectives, strongest.measured_s, strict=True):
        if measured.upper <= one.bound_s:
            continue
        if isinstance(one, Drain) and (needed := pods_needed(question, one)) > question.most_pods:
            why = f"it needs {needed} pods from the first second, more than --most-pods {question.most_pods}"
        elif question.rate * question.work_s >= question.most_pods * question.workload.pod.concurrency:
            busy = question.rate * question.work_s / question.workload.pod.concurrency
            why = f"the usual traffic keeps {busy:.1f} pods busy, at least --most-pods {question.most_pods}"
        else:
            never = math.isinf(measured.value)
            took = "never reach it" if never else f"need {shown(measured.value)} (up to {shown(measured.upper)})"
            why = f"{question.most_pods} pods all the time {took}"
        reasons.append(f"{one} is not reachable: {why}")
    return reasons
