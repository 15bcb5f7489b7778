"""API and worker with only the two simple tasks: `tests.harness.simple_tasks_app:create_app` and `:app`."""

import sys

from celery import Celery
from fastapi import FastAPI

from apps.api import app as api
from apps.contract.settings import WorkerSettings, load
from apps.worker import celery_app as worker
from tests.harness import simple_tasks
from tests.harness.simple_tasks import TASKS
from tests.harness.task_functions import works


def create_app() -> FastAPI:
    return api.create_app(registry=TASKS)


def __getattr__(name: str) -> Celery:
    if name not in {"app", "celery"}:
        raise AttributeError(name)
    built = worker.create_app(load(WorkerSettings), TASKS, works(TASKS, simple_tasks))
    setattr(sys.modules[__name__], name, built)
    return built
