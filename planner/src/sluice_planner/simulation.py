"""Simulates workloads under traffic: broker, management API, KEDA, HPA, pods and tasks, event by event.

Between two runs of the control loops (schedule.py) kernel.py runs the tasks. The same seed makes the same traffic on
every overlay.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sluice_planner import hpa_controller, reasons
from sluice_planner.cluster_settings import Cluster
from sluice_planner.fields import Wrong
from sluice_planner.keda import Counts, Trigger
from sluice_planner.keda_loop import KedaLoop
from sluice_planner.prefetching import PrefetchingWorkers
from sluice_planner.replica_set import Nodes, Pods
from sluice_planner.schedule import moments
from sluice_planner.traffic import Traffic, expected, feeds
from sluice_planner.workers import Tally, Waits, Workers
from sluice_planner.workload import SLOTS_MAX, Workload

# tasks are loaded in advance, in blocks of about this size
AHEAD_TASKS = 50_000
AHEAD_S = 3600.0
# the longest simulation without a given duration
LONGEST_S = 7 * 86400.0
NO_WAITS = Waits(np.zeros(0, np.int64), 0, 0.0, 0.0)


class Sample(NamedTuple):
    """A workload at one time: tasks, pods (desired, existing, ready) and the age of the oldest waiting task."""

    at_s: float
    waiting: int
    running: int
    desired: int
    pods: int
    ready: int
    oldest_s: float


class Event(NamedTuple):
    """A scaling decision."""

    at_s: float
    before: int
    after: int
    reason: str


@dataclass
class Outcome:
    """The result for a workload. Times are in seconds; None if the event did not happen."""

    name: str
    minimum: int
    maximum: int
    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    waits: Waits = NO_WAITS
    end_s: float = 0.0
    arrived: int = 0
    done: int = 0
    begun_again: int = 0
    peak_waiting: int = 0
    peak_s: float = 0.0
    drained_s: float | None = None
    max_reached_s: float | None = None
    last_end_s: float = 0.0
    pod_hours: float = 0.0
    busy: float = 0.0
    pending_max: int = 0


def simulate(workloads: Sequence[Workload], traffic: Traffic, cluster: Cluster) -> list[Outcome]:
    """Simulate workloads that share nothing but the nodes. Raises Wrong if there are too many pods to simulate."""
    for each in workloads:
        if (cluster.initial_replicas or 0) * each.pod.concurrency > SLOTS_MAX:
            raise Wrong(f"{each.where}: {cluster.initial_replicas} pods of {each.pod.concurrency} tasks are too many")
    nodes = Nodes(cluster.nodes)
    runs = [_Run(each, traffic, cluster, nodes) for each in workloads]
    end_s = LONGEST_S if traffic.duration_s is None else traffic.duration_s
    while True:
        run = min(runs, key=lambda each: each.next_s)
        if run.next_s > end_s:
            break
        run.step()
        if traffic.duration_s is None and all(each.at_rest for each in runs):
            break
    if traffic.duration_s is None:
        end_s = max(each.now_s for each in runs)
    return [run.finish(end_s) for run in runs]


class _Run:
    """The simulation of one workload."""

    def __init__(self, workload: Workload, traffic: Traffic, cluster: Cluster, nodes: Nodes) -> None:
        scaler = workload.scaler
        self._workload, self._traffic, self._cluster = workload, traffic, cluster
        self._settings = hpa_controller.Settings(
            minimum=scaler.hpa_minimum,
            maximum=scaler.maximum,
            targets_milli=tuple(trigger.target_milli for trigger in scaler.triggers),
            behavior=scaler.behavior,
            tolerance=cluster.tolerance,
            downscale_stabilization_s=cluster.downscale_stabilization_s,
        )
        self._keda = KedaLoop(scaler)
        self._memory: hpa_controller.Memory | None = None
        self._desired = scaler.rest if cluster.initial_replicas is None else cluster.initial_replicas
        self._workers = _workers(workload, traffic.warm_up_s)
        self._pods = Pods(workload.pod, nodes, self._workers, cluster.pod_start_s)
        self._pods.scale(self._desired, 0.0, start_s=0.0)
        self._feeds = feeds(workload.queues, traffic)
        self._ends_s = max((each.end_s for feed in self._feeds for each in feed.arrivals), default=0.0)
        self._loaded_s = 0.0
        self._shown: deque[tuple[float, list[Counts]]] = deque()
        self._before: tuple[float, Tally] | None = None
        self._held = False
        self._outcome = Outcome(workload.name, scaler.minimum, scaler.maximum)
        self._moments = moments(scaler, cluster)
        self.now_s = 0.0
        self.next_s, self._loop = next(self._moments)
        self.at_rest = False
        self._record()

    def step(self) -> None:
        """Advance to the next scheduled loop and run it."""
        self.now_s = self.next_s
        self._advance(self.now_s)
        (self._sample, self._poll, self._sync)[self._loop]()
        self.next_s, self._loop = next(self._moments)

    def finish(self, end_s: float) -> Outcome:
        """Advance to the end and return the outcome."""
        self.now_s = end_s
        self._advance(end_s)
        self._record()
        outcome, tally = self._outcome, self._workers.tally(end_s)
        outcome.waits, outcome.end_s = self._workers.waits, end_s
        outcome.arrived, outcome.done = int(tally.arrived.sum()), tally.done
        outcome.begun_again, outcome.last_end_s = self._workers.killed, self._workers.last_end_s
        pod_s = self._pods.seconds(end_s)
        outcome.pod_hours = pod_s / 3600
        outcome.busy = self._workers.work_s(end_s) / (pod_s * self._workload.pod.concurrency) if pod_s else 0.0
        return outcome

    def _advance(self, until_s: float) -> None:
        while self._loaded_s < until_s:
            self._load(until_s)
        self._workers.advance(until_s)
        self._pods.tick(until_s)

    def _load(self, until_s: float) -> None:
        """Load the next tasks of all queues, in order of arrival."""
        arrivals = [each for feed in self._feeds for each in feed.arrivals]
        ahead_s = AHEAD_S
        while ahead_s > 1 and expected(arrivals, self._loaded_s, self._loaded_s + ahead_s) > AHEAD_TASKS:
            ahead_s /= 2
        self._loaded_s = max(until_s, self._loaded_s + ahead_s)
        parts = [feed.until(self._loaded_s) for feed in self._feeds]
        came = np.concatenate([times for times, _ in parts])
        service = np.concatenate([service for _, service in parts])
        queue = np.concatenate([np.full(len(times), number) for number, (times, _) in enumerate(parts)])
        if len(parts) > 1:
            order = np.argsort(came, kind="stable")
            came, service, queue = came[order], service[order], queue[order]
        self._workers.load(came, service, queue)

    def _sample(self) -> None:
        """Let the management API take a sample of the queues."""
        tally = self._workers.tally(self.now_s)
        self._shown.append((self.now_s, self._counts(tally)))
        self._before = (self.now_s, tally)

    def _counts(self, tally: Tally) -> list[Counts]:
        """The counts of each queue. Prefetched messages count as unacked, though they are not running."""
        spare = (self._workload.pod.prefetch - 1) * self._workload.pod.concurrency * self._pods.ready(self.now_s)
        rates = [(0.0, 0.0)] * len(tally.waiting)
        if self._before is not None:
            then_s, before = self._before
            published = (tally.arrived - before.arrived) / (self.now_s - then_s)
            delivered = published - (tally.waiting - before.waiting) / (self.now_s - then_s)
            rates = list(zip(published.tolist(), delivered.tolist(), strict=True))
        counts = []
        for waiting, running, rate in zip(tally.waiting, tally.running, rates, strict=True):
            taken = min(int(waiting), spare)
            counts.append(Counts(int(waiting) - taken, int(running) + taken, *rate))
        return counts

    def _read(self, trigger: Trigger) -> Counts | None:
        """Answer KEDA: over HTTP with the newest published sample, over AMQP with the current counts."""
        down_s = self._cluster.metrics_down_s
        if down_s and down_s[0] <= self.now_s < down_s[1]:
            return None
        queue = self._workload.queues.index(trigger.queue)
        if trigger.protocol == "amqp":
            return self._counts(self._workers.tally(self.now_s))[queue]
        while len(self._shown) > 1 and self._shown[1][0] <= self.now_s - self._cluster.stats_lag_s:
            self._shown.popleft()
        if not self._shown or self._shown[0][0] > self.now_s - self._cluster.stats_lag_s:
            return Counts(0, 0)
        return self._shown[0][1][queue]

    def _poll(self) -> None:
        move = self._keda.poll(self.now_s, self._read, self._desired)
        if move is not None and move.replicas != self._desired:
            self._scale(move.replicas, move.reason)

    def _sync(self) -> None:
        """Run one sync of the HPA, which reads its metrics only while the replicas are within its bounds."""
        scaler = self._workload.scaler
        metrics: list[int | None] = [None] * len(scaler.triggers)
        if scaler.hpa_minimum <= self._desired <= scaler.maximum:
            metrics = [self._keda.answer(trigger, self._read, self._desired).milli for trigger in scaler.triggers]
        seen = hpa_controller.Seen(round(self.now_s * hpa_controller.NS_PER_S), self._desired, self._desired, metrics)
        decision, self._memory = hpa_controller.step(self._settings, self._memory, seen)
        held = self._is_held(decision)
        if decision.replicas != self._desired or (held and not self._held):
            self._scale(decision.replicas, reasons.reason(scaler, self._settings, metrics, decision))
        self._held = held
        self._record()

    def _is_held(self, decision: hpa_controller.Decision) -> bool:
        """Whether something other than the bounds keeps the HPA from its recommendation."""
        if decision.wanted is None:
            return decision.why is hpa_controller.Why.NO_METRIC
        recommended = min(max(decision.wanted, self._settings.minimum), self._settings.maximum)
        return recommended != decision.replicas

    def _scale(self, replicas: int, reason: str) -> None:
        self._outcome.events.append(Event(self.now_s, self._desired, replicas, reason))
        self._desired = replicas
        self._pods.scale(replicas, self.now_s)
        self._outcome.pending_max = max(self._outcome.pending_max, self._pods.pending)

    def _watch(self, tally: Tally) -> None:
        """Update the peak, the drain and the time of the maximum."""
        outcome, waiting = self._outcome, int(tally.waiting.sum())
        if waiting > outcome.peak_waiting:
            outcome.peak_waiting, outcome.peak_s, outcome.drained_s = waiting, self.now_s, None
        elif not waiting and outcome.peak_waiting and outcome.drained_s is None:
            outcome.drained_s = self._workers.last_waited_s
        if outcome.max_reached_s is None and self._pods.ready(self.now_s) >= outcome.maximum:
            outcome.max_reached_s = self._pods.all_ready_s

    def _record(self) -> None:
        tally, pods = self._workers.tally(self.now_s), self._pods
        self._watch(tally)
        waiting, running = int(tally.waiting.sum()), int(tally.running.sum())
        ready, oldest_s = pods.ready(self.now_s), self._workers.oldest_s(self.now_s)
        sample = Sample(self.now_s, waiting, running, self._desired, pods.count, ready, oldest_s)
        idle = not waiting and not running and not pods.ending and self._desired <= self._workload.scaler.rest
        self.at_rest = idle and self.now_s > self._ends_s
        if self._outcome.samples and self._outcome.samples[-1].at_s == self.now_s:
            self._outcome.samples.pop()
        self._outcome.samples.append(sample)


def _workers(workload: Workload, warm_up_s: float) -> Workers:
    if workload.pod.prefetch_waits:
        return PrefetchingWorkers(len(workload.queues), warm_up_s, workload.pod.prefetch)
    return Workers(len(workload.queues), warm_up_s)
