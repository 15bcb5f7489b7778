# ruff: noqa: INP001 - no package: workers have this file in the place of apps/worker/tasks.py
"""The example tasks, which here count their effects in Redis, as a team's tasks leave theirs in a database."""

import time

import redis

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import Output, Task1, Task2

LEDGER = "e2e:ledger"


def task_1(task: Task1, settings: WorkerSettings) -> Output:
    """The shorter one here."""
    return _work(task.name, settings.task_1_s, settings)


def task_2(task: Task2, settings: WorkerSettings) -> Output:
    """The longer one here."""
    return _work(task.name, settings.task_2_s, settings)


def _work(name: str, seconds: float, settings: WorkerSettings) -> Output:
    time.sleep(seconds)
    with redis.Redis.from_url(settings.celery_result_backend.get_secret_value()) as store:
        store.hincrby(LEDGER, name, 1)
    return Output(name_task=name, state="done")
