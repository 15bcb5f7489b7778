"""Measures batches of 1,000 tasks by HTTP, and the publisher alone, which `python -m bench.batch` runs."""

import os
import subprocess
import sys

import uvloop

from apps.contract.message import task_message
from bench import figures
from bench.apps import ours as app
from bench.apps.model import BODY
from bench.load import BATCH_TASKS, wrk
from bench.publishing import publish_all
from bench.server import ROOT, Server, ours, purge
from tests.harness.system import System

SECONDS = 4.0
CONNECTIONS = 4
TASKS = 40_000


def measure(system: System, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Returns (the figure, medians of both rates in tasks per second)."""
    batches, alone = [], []
    with ours(system) as server:
        _batches_per_s(system, server, 1)
        for _ in range(rounds):
            one, two = _batches_per_s(system, server, SECONDS), _alone_per_s(system)
            three, four = _alone_per_s(system), _batches_per_s(system, server, SECONDS)
            batches.append((one + four) / 2)
            alone.append((two + three) / 2)
    medians = {"batch_per_s": figures.summary(batches)["median"], "publisher_per_s": figures.summary(alone)["median"]}
    return {"batch_vs_publisher": figures.ratios(batches, alone)}, medians


def _batches_per_s(system: System, server: Server, seconds: float) -> float:
    found = wrk(server, CONNECTIONS, seconds, batch=True).per_s * BATCH_TASKS
    purge(system)
    return found


def _alone_per_s(system: System) -> float:
    command = [sys.executable, "-m", "bench.batch"]
    done = subprocess.run(  # noqa: S603
        command, env=system.environment("api"), cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    purge(system)
    return float(done.stdout)


async def publish(url: str, tasks: int) -> float:
    """Publish messages with a full window, and return the confirmed messages per second."""
    ids = (f"{number:053}" for number in range(tasks))
    messages = (task_message(app.SPEC, BODY, task_id=one, owner="bench", request_id="bench") for one in ids)
    return tasks / await publish_all(url, messages)


if __name__ == "__main__":
    print(uvloop.run(publish(os.environ["CELERY_BROKER_URL"], TASKS)))
