"""Measures tasks that do nothing in our worker and in stock Celery: two processes each, late acks, results stored.

Both workers prefetch four messages per process, Celery's default. Our worker is also measured with its own default
(`WORKER_PREFETCH`) of one message, with which it waits for the broker after each task.
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
from bench.publishing import publish_all
from bench.server import ROOT, administrator, broker_url, purge
from ops.servers.child import Child
from tests.harness.system import System, until

TASKS = 6000
# Shares of the tasks between which rates are measured: without the start, and without the end, when a process is idle.
FROM, TO = 0.2, 0.9
PREFETCH = {"WORKER_PREFETCH": "4"}


@dataclass(frozen=True)
class Worker:
    """A worker that is measured: the Celery app's module, the task, its queue, and more environment."""

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
    """Returns (figures, medians of the rates in tasks per second and of the costs in microseconds per task)."""
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
    """Declare stock Celery's queue, and bind it to the exchange of the publisher."""
    exchange = kombu.Exchange("sluice", type="topic", no_declare=True)
    with kombu.Connection(broker_url(system)) as connection:
        arguments = {"x-queue-type": "quorum"}
        kombu.Queue(stock.QUEUE, exchange, stock.QUEUE, queue_arguments=arguments)(connection.default_channel).declare()


@contextmanager
def running(system: System, name: str, worker: Worker | None = None) -> Iterator[Child]:
    """Run a worker under a name. The default is the worker of this name in WORKERS."""
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
    """Let a worker run the TASKS queued tasks. Returns (tasks per second, CPU of the worker in us per task)."""
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
    """CPU time that the worker and its child processes have used so far, in seconds."""
    main = psutil.Process(child.pid)
    return sum(times.user + times.system for times in (each.cpu_times() for each in (main, *main.children())))


def _messages(system: System, task: str, queue: str) -> Iterator[TaskMessage]:
    ids = TaskIds(system.task_id_key.encode())
    argument = BODY if task == stock.TASK else json.dumps(BODY)  # Celery's task gets an object, and ours the JSON text
    body = f'[[{argument}],{{}},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]'.encode()
    for number in range(TASKS):
        yield TaskMessage(task, queue, ids.new("bench"), f"{number:032}", "bench", "bench", None, body)
