"""Tasks that do nothing, by our worker and by stock Celery: two processes each, late acks, results kept.

Compared are workers that hold as many messages, four for each process, which is Celery's default. Ours holds one unless
it is told (`WORKER_PREFETCH`), and then waits for the broker after each task: that is measured beside it.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import kombu
import psutil

from apps.contract.ids import TaskIds
from apps.contract.message import TaskMessage
from bench import figures
from bench.apps import ours, stock
from bench.apps.model import BODY
from bench.filling import publish_all
from bench.server import ROOT, administrator, broker_url, purge
from ops.servers.child import Child
from tests.harness.system import System, until

TASKS = 6000
# Measured from one to the other: neither the start nor the last few, when one process has no more to do.
FROM, TO = 0.2, 0.9
PREFETCH = {"WORKER_PREFETCH": "4"}


@dataclass(frozen=True)
class Worker:
    """One of those that are compared."""

    module: str
    task: str
    queue: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT


WORKERS = {
    "ours": Worker("bench.apps.ours", ours.SPEC.name, ours.QUEUE, PREFETCH),
    "stock": Worker("bench.apps.stock", stock.TASK, stock.QUEUE),
    "prefetch_1": Worker("bench.apps.ours", ours.SPEC.name, ours.QUEUE),
}


def measure(system: System, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The figures, and the rates and costs themselves."""
    bind(system)
    rates: dict[str, list[float]] = {name: [] for name in WORKERS}
    costs: dict[str, list[float]] = {name: [] for name in WORKERS}
    for _ in range(rounds):
        turns = [(name, *_per_s_and_us(system, name)) for name in (*WORKERS, *reversed(WORKERS))]
        for name in WORKERS:
            rates[name].append(sum(per_s for other, per_s, _ in turns if other == name) / 2)
            costs[name].append(sum(us for other, _, us in turns if other == name) / 2)
    medians = {f"worker_{name}_per_s": statistics.median(values) for name, values in rates.items()}
    medians |= {f"worker_{name}_cpu_us": statistics.median(values) for name, values in costs.items()}
    found = {
        "worker_vs_celery": figures.ratios(rates["ours"], rates["stock"]),
        "worker_prefetch_1_vs_celery": figures.ratios(rates["prefetch_1"], rates["stock"]),
        "worker_cpu_vs_celery": figures.ratios(costs["ours"], costs["stock"]),
    }
    return found, medians


def bind(system: System) -> None:
    """Stock Celery's queue, where the publisher can reach it."""
    exchange = kombu.Exchange("sluice", type="topic", no_declare=True)
    with kombu.Connection(broker_url(system)) as connection:
        arguments = {"x-queue-type": "quorum"}
        kombu.Queue(stock.QUEUE, exchange, stock.QUEUE, queue_arguments=arguments)(connection.default_channel).declare()


@contextmanager
def running(system: System, name: str, worker: Worker | None = None) -> Iterator[Child]:
    """A worker under that name; by default the one of WORKERS."""
    worker = worker or WORKERS[name]
    command = [sys.executable, "-m", "celery", "--quiet", "-A", worker.module, "worker", "-n", f"{name}@%h"]
    extra = {"WORKER_CONCURRENCY": "2", "PYTHONWARNINGS": "ignore", **worker.environment}
    if name == "stock":
        extra |= administrator(system)
    environment = system.environment("worker", **extra)
    child = Child(f"worker {name}", command, log=system.folder / f"worker-{name}.log", env=environment, cwd=worker.cwd)
    child.start()
    try:
        yield child
    finally:
        child.stop()


def _per_s_and_us(system: System, name: str) -> tuple[float, float]:
    worker = WORKERS[name]
    messages = _messages(system, worker.task, worker.queue)
    asyncio.run(publish_all(broker_url(system), messages))
    return per_s_and_us(system, name, worker)


def per_s_and_us(system: System, name: str, worker: Worker) -> tuple[float, float]:
    """Let a worker run the TASKS that wait. Tasks a second, and microseconds of the worker's processes for each."""
    with running(system, name, worker) as child:
        times_s, cpu_s, tasks = [], [], []
        for share in (FROM, TO):
            until(lambda share=share: not child.alive or system.redis.dbsize() >= share * TASKS, 120)  # type: ignore[misc]
            assert child.alive, child.last_lines()
            times_s.append(time.perf_counter())
            cpu_s.append(_cpu_s(child))
            tasks.append(system.redis.dbsize())
    system.redis.flushdb()
    purge(system)
    done = tasks[1] - tasks[0]
    return done / (times_s[1] - times_s[0]), (cpu_s[1] - cpu_s[0]) / done * 1e6


def _cpu_s(child: Child) -> float:
    """Used so far, by the worker and its processes."""
    main = psutil.Process(child.pid)
    return sum(times.user + times.system for times in (each.cpu_times() for each in (main, *main.children())))


def _messages(system: System, task: str, queue: str) -> Iterator[TaskMessage]:
    ids = TaskIds(system.task_id_key.encode())
    argument = BODY if task == stock.TASK else json.dumps(BODY)  # an object for Celery's task, its text for ours
    body = f'[[{argument}],{{}},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]'.encode()
    for number in range(TASKS):
        yield TaskMessage(task, queue, ids.new("bench"), f"{number:032}", "bench", "bench", None, body)
