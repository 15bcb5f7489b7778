"""`make bench-planner`: tasks per second of the planner's engine and of SimPy, and growth with the number of tasks.

Both engines run the same model with the planner's control loops. Tasks, slots and queues are simulated by the compiled
kernel or by SimPy processes. The engines take turns in one process. Imports and compilation are not measured.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import simpy

from ops.command import command_line
from sluice_planner import arrivals, kubernetes_objects, manifests, service_times
from sluice_planner.cluster_settings import Cluster
from sluice_planner.simulation import Outcome, simulate
from sluice_planner.traffic import Traffic
from sluice_planner.workers import Tally, Waits
from sluice_planner.workload import Workload

OVERLAY = "kustomize/overlays/load"
RESULT = Path("build/bench-planner.json")
ROUNDS = 5
# case -> (tasks per second, service time in seconds). About twenty pods are busy in both cases. At the lower rate, our
# time is mostly spent in the control loops, which both engines share; at the higher rate, in the tasks, so this ratio
# is compared with LEAST_RATIO.
CASES = {"tasks": (200.0, 0.1), "loops": (20.0, 1.0)}
# simulated time: SimPy needs some seconds for half an hour
DURATION_S = 1800.0
# many tasks in a short simulated time, so that tasks dominate the measured time
GROWTH_RATE, GROWTH_SERVICE_S = 400.0, 0.05
GROWTH_TASKS = (100_000, 1_000_000, 10_000_000)
LEAST_RATIO = 30
AGREEMENT = 0.005


class SimpyWorkers:
    """The interface of sluice_planner.workers.Workers with SimPy processes: one for arrivals, and one per slot."""

    def __init__(self, queues: int, warm_up_s: float = 0.0) -> None:
        assert (queues, warm_up_s) == (1, 0.0), "the bench has one queue and no warm-up"
        self._env = simpy.Environment()
        self._store = simpy.Store(self._env)
        self._arrived = self._started = self._done = 0
        self._idle: dict[int, Any] = {}
        self._ends: dict[int, float] = {}
        self._retired: set[int] = set()
        self._slots = 0
        self._waits: list[float] = []
        self.last_waited_s = self.last_end_s = 0.0
        self.killed = 0

    def load(self, came: np.ndarray, took: np.ndarray, _: np.ndarray) -> None:
        self._env.process(self._feed(came.tolist(), took.tolist()))

    def _feed(self, came: list[float], took: list[float]) -> Any:
        for at_s, service_s in zip(came, took, strict=True):
            yield self._env.timeout(at_s - self._env.now)
            self._arrived += 1
            self._store.put((at_s, service_s))

    def _slot(self, slot: int, at_s: float) -> Any:
        yield self._env.timeout(max(0.0, at_s - self._env.now))
        while slot not in self._retired:
            get = self._store.get()
            self._idle[slot] = self._env.active_process
            try:
                came_s, service_s = yield get
            except simpy.Interrupt:
                get.cancel()
                return
            del self._idle[slot]
            self._started += 1
            self._waits.append(self._env.now - came_s)
            if self._waits[-1] > 0.001:  # noqa: PLR2004 - as in the kernel
                self.last_waited_s = self._env.now
            self._ends[slot] = self.last_end_s = self._env.now + service_s
            yield self._env.timeout(service_s)
            self._done += 1

    def advance(self, until_s: float) -> None:
        if until_s > self._env.now:
            self._env.run(until=until_s)

    def add(self, count: int, at_s: float) -> np.ndarray:
        slots = np.arange(self._slots, self._slots + count)
        self._slots += count
        for slot in slots.tolist():
            self._env.process(self._slot(slot, at_s))
        return slots

    def retire(self, slots: np.ndarray, now_s: float, _: float) -> float:
        self._retired.update(slots.tolist())
        for slot in slots.tolist():
            if slot in self._idle:
                self._idle.pop(slot).interrupt()
        return max([now_s, *(self._ends.get(slot, now_s) for slot in slots.tolist())])

    def tally(self, _: float) -> Tally:
        waiting, running = self._arrived - self._started, self._started - self._done
        return Tally(np.array([self._arrived]), np.array([waiting]), np.array([running]), self._done)

    def oldest_s(self, now_s: float) -> float:
        return now_s - self._store.items[0][0] if self._store.items else 0.0

    def work_s(self, _: float) -> float:
        return 0.0

    @property
    def waits(self) -> Waits:
        return Waits(np.zeros(1, np.int64), len(self._waits), sum(self._waits), max(self._waits, default=0.0))


def measure(run: Callable[[], Outcome]) -> tuple[float, Outcome]:
    """Run a simulation. Returns (simulated tasks per second of real time, the outcome)."""
    started_s = time.perf_counter()
    outcome = run()
    return outcome.done / (time.perf_counter() - started_s), outcome


def bench_workload() -> Workload:
    """The load overlay with only its first queue. No task is killed, because SimPy's slots have no grace period."""
    (found,) = manifests.workloads(kubernetes_objects.read(OVERLAY), manifests.Reading())
    scaler = replace(found.scaler, triggers=found.scaler.triggers[:1])
    return replace(found, scaler=scaler, pod=replace(found.pod, grace_s=10**6))


def run(workload: Workload, rate: float, service_s: float, duration_s: float, seed: int) -> Outcome:
    queue = workload.queues[0]
    took = service_times.read(f"exponential:{service_s}", "bench")
    traffic = Traffic({queue: arrivals.read(f"{rate}/s", "bench")}, {queue: took}, duration_s, seed=seed)
    (outcome,) = simulate([workload], traffic, Cluster())
    return outcome


@contextmanager
def simpy_engine() -> Any:
    with mock.patch("sluice_planner.simulation.Workers", SimpyWorkers):
        yield


def against_simpy(workload: Workload, case: str) -> dict[str, Any]:
    """Run both engines in turns. Returns their speeds in tasks per second, the ratios, and the mean waits."""
    rate, service_s = CASES[case]
    ours, theirs, waits = [], [], []
    for number in range(ROUNDS):
        speed, outcome = measure(partial(run, workload, rate, service_s, DURATION_S, number))
        ours.append(speed)
        with simpy_engine():
            speed, other = measure(partial(run, workload, rate, service_s, DURATION_S, number))
        theirs.append(speed)
        # the outcomes differ slightly after the first scale-down: engines choose differently between two idle slots
        assert abs(outcome.done - other.done) <= AGREEMENT * other.done, "the engines disagree"
        waits.append((outcome.waits.mean_s, other.waits.mean_s))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"ours": spread(ours), "simpy": spread(theirs), "ratio": spread(ratios), "mean_waits_s": waits}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def growth() -> list[dict[str, float]]:
    """Speed and memory for each number of GROWTH_TASKS, each measured in a new process."""
    found = []
    for tasks in GROWTH_TASKS:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "bench.planner", str(tasks)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return found


def grow(tasks: int) -> dict[str, float]:
    """Measure one number of tasks: tasks per second, and the peak memory of this process in MiB."""
    workload = bench_workload()
    run(workload, GROWTH_RATE, GROWTH_SERVICE_S, 600.0, 1)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed, outcome = measure(lambda: run(workload, GROWTH_RATE, GROWTH_SERVICE_S, tasks / GROWTH_RATE, 1))
    after_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tasks": outcome.done, "tasks_per_s": speed, "mib": after_mib, "mib_more": after_mib - before_mib}


def main() -> None:
    """Measure, write and print the result. Exits with 1 if the ratio is below LEAST_RATIO."""
    if sys.argv[1:]:
        print(json.dumps(grow(int(sys.argv[1]))))
        return
    workload = bench_workload()
    run(workload, 20.0, 1.0, 600.0, 1)
    result: dict[str, Any] = {"cpus": os.cpu_count(), "python": sys.version.split()[0]}
    result |= {case: against_simpy(workload, case) for case in CASES}
    result |= {"ratio": result["tasks"]["ratio"]["median"], "growth": growth()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2))
    for case, (rate, _) in CASES.items():
        print(f"{rate:g} tasks per simulated second; speed of each engine in tasks per second:")
        for name in ("ours", "simpy", "ratio"):
            each = result[case][name]
            print(f"  {name:6} {each['median']:>12,.0f}  ({each['least']:,.0f} to {each['most']:,.0f})")
    for each in result["growth"]:
        print(f"{each['tasks']:>10,} tasks  {each['tasks_per_s']:>10,.0f}/s  {each['mib']:.0f} MiB")
    if result["ratio"] < LEAST_RATIO:
        sys.exit(f"The ratio is below {LEAST_RATIO}.")


if __name__ == "__main__":
    command_line(main)
