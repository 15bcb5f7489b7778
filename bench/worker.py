"""Tasks that do nothing, by our worker and by stock Celery: two processes each, late acks, results kept."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import kombu

from apps.contract.ids import TaskIds
from apps.contract.message import TaskMessage
from bench import figures
from bench.apps import ours, stock
from bench.filling import publish_all
from bench.server import ROOT, broker_url, purge
from local.child import Child
from tests.harness.system import System, until

TASKS = 6000
# Measured from one to the other: neither the start nor the last few, when one process has no more to do.
FROM, TO = 0.2, 0.9
WORKERS = {"ours": ("bench.apps.ours", ours.TASK, "Test_Query"), "stock": ("bench.apps.stock", stock.TASK, stock.QUEUE)}


def measure(system: System, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The figure, and the rates themselves."""
    bind(system)
    found: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(rounds):
        turns = [(name, _tasks_per_s(system, name)) for name in ("ours", "stock", "stock", "ours")]
        for name, values in found.items():
            values.append(sum(per_s for other, per_s in turns if other == name) / 2)
    medians = {f"worker_{name}_per_s": figures.summary(values)["median"] for name, values in found.items()}
    return {"worker_vs_celery": figures.ratios(found["ours"], found["stock"])}, medians


def bind(system: System) -> None:
    """Stock Celery's queue, where the publisher can reach it."""
    exchange = kombu.Exchange("sluice", type="topic", no_declare=True)
    with kombu.Connection(broker_url(system)) as connection:
        arguments = {"x-queue-type": "quorum"}
        kombu.Queue(stock.QUEUE, exchange, stock.QUEUE, queue_arguments=arguments)(connection.default_channel).declare()


@contextmanager
def running(system: System, name: str) -> Iterator[Child]:
    """One of the two workers."""
    module = WORKERS[name][0]
    command = [sys.executable, "-m", "celery", "--quiet", "-A", module, "worker", "-n", f"{name}@%h"]
    extra = {"WORKER_CONCURRENCY": "2", "PYTHONWARNINGS": "ignore"}
    if name == "stock":
        extra["CELERY_BROKER_URL"] = broker_url(system)
    environment = system.environment("worker", **extra)
    child = Child(f"worker {name}", command, log=system.folder / f"worker-{name}.log", env=environment, cwd=ROOT)
    child.start()
    try:
        yield child
    finally:
        child.stop()


def _tasks_per_s(system: System, name: str) -> float:
    _, task, queue = WORKERS[name]
    asyncio.run(publish_all(system.environment("api")["CELERY_BROKER_URL"], _messages(system, task, queue)))
    with running(system, name) as child:
        times_s = []
        for share in (FROM, TO):
            until(lambda share=share: not child.alive or system.redis.dbsize() >= share * TASKS, 120)  # type: ignore[misc]
            times_s.append(time.perf_counter())
        assert child.alive, child.last_lines()
    system.redis.flushdb()
    purge(system)
    return (TO - FROM) * TASKS / (times_s[1] - times_s[0])


def _messages(system: System, task: str, queue: str) -> Iterator[TaskMessage]:
    ids = TaskIds(system.task_id_key.encode())
    body = b'[[{"task":"task_1","name":"abc"}],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    for number in range(TASKS):
        yield TaskMessage(task, queue, ids.new("bench"), f"{number:032}", "bench", "bench", None, body)
