"""Sluice with a task that does nothing: `uvicorn --factory bench.apps.ours:api`, `celery -A bench.apps.ours`."""

import sys

from celery import Celery
from fastapi import FastAPI

from apps.api.app import create_app
from apps.contract.settings import WorkerSettings, load
from apps.contract.tasks import Output, Task1, TaskSpec, registry
from apps.worker import app as worker

TASK = "Test_Query:task_1"
REGISTRY = registry(TaskSpec(name=TASK, input=Task1, output=Output, hard_limit_s=90))


def task_1(task: Task1, settings: WorkerSettings) -> Output:  # noqa: ARG001 - the signature of every task
    return Output(name_task=task.name, state="done")


def api() -> FastAPI:
    return create_app(registry=REGISTRY)


def __getattr__(name: str) -> Celery:
    if name in {"app", "celery"}:
        return worker.create_app(load(WorkerSettings), REGISTRY, sys.modules[__name__])
    raise AttributeError(name)
