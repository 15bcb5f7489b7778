# ruff: noqa: INP001 - no package: workers have this file in the place of apps/worker/tasks.py
"""The example tasks, which here record in Redis how often each began and had its effect, and when it ended."""

import time
from functools import cache

import redis

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import Output, Task1, Task2

# keys that Redis lets the worker's user write; tests/e2e/system.py reads them
LEDGER, BEGUN, ENDED = "sluice:task:e2e-ledger", "sluice:task:e2e-begun", "sluice:task:e2e-ended"


def task_1(task: Task1, settings: WorkerSettings) -> Output:
    """The shorter one here."""
    return _work(task.name, settings.task_1_s, settings)


def task_2(task: Task2, settings: WorkerSettings) -> Output:
    """The longer one here."""
    return _work(task.name, settings.task_2_s, settings)


def _work(name: str, seconds: float, settings: WorkerSettings) -> Output:
    url = settings.celery_result_backend.get_secret_value()
    try:
        _store(url).hincrby(BEGUN, name, 1)
        time.sleep(seconds)
        _store(url).hset(ENDED, name, time.time())  # before the ledger: who sees the last entry there sees the time too
        _store(url).hincrby(LEDGER, name, 1)
    except redis.RedisError as exc:
        raise ConnectionError(str(exc)) from exc  # transient, by the task's entry in the contract
    return Output(name_task=name, state="done")


@cache
def _store(url: str) -> redis.Redis:
    """One connection for each process of the pool."""
    return redis.Redis.from_url(url)
