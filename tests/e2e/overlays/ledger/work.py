# ruff: noqa: INP001 - not in a package: the workers mount it as apps/tasks/ledger/work.py
"""Count in Redis how often each task began and had its effect, and record when it ended."""

import time
from functools import cache

import redis

from apps.contract.settings import WorkerSettings
from apps.worker.functions import work

from .contract import LONG, SHORT, Long, Output, Short

SHORT_S, LONG_S = 1.0, 5.0
# keys that Redis lets the worker's user write; tests/e2e/system.py reads them
LEDGER, BEGUN, ENDED = "sluice:task:e2e-ledger", "sluice:task:e2e-begun", "sluice:task:e2e-ended"


@work(SHORT, settings=WorkerSettings, retry_on=(ConnectionError,))
def counted_short(task: Short, settings: WorkerSettings) -> Output:
    return _count(task.name, SHORT_S, settings)


@work(LONG, settings=WorkerSettings, retry_on=(ConnectionError,))
def counted_long(task: Long, settings: WorkerSettings) -> Output:
    return _count(task.name, LONG_S, settings)


def _count(name: str, seconds: float, settings: WorkerSettings) -> Output:
    url = settings.celery_result_backend.get_secret_value()
    try:
        _store(url).hincrby(BEGUN, name, 1)
        time.sleep(seconds)
        _store(url).hset(ENDED, name, time.time())  # before the ledger, so its last entry implies this time
        _store(url).hincrby(LEDGER, name, 1)
    except redis.RedisError as exc:
        raise ConnectionError(str(exc)) from exc  # this error is retried
    return Output(name=name)


@cache
def _store(url: str) -> redis.Redis:
    """Return one connection per process of the pool."""
    return redis.Redis.from_url(url)
