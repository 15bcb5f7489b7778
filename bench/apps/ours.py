"""Sluice with a task that does nothing: `uvicorn --factory bench.apps.ours:api`, `celery -A bench.apps.ours`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from celery import Celery
from fastapi import FastAPI

from apps.api.app import create_app
from apps.contract import topology
from apps.contract.settings import WorkerSettings, load
from apps.contract.tasks import TaskSpec, registry
from bench.apps.model import Done, Nothing

# the first work queue, because a team may rename queues
QUEUE = topology.WORK_QUEUES[0]
SPEC = TaskSpec(name=f"{QUEUE}:nothing", input=Nothing, output=Done, hard_limit_s=90)
REGISTRY = registry(SPEC)


def nothing(task: Nothing, *_: object) -> Done:
    return Done(name_task=task.name, state="done")


def api() -> FastAPI:
    return create_app(registry=REGISTRY)


def _functions() -> Any:
    """The functions argument of the worker's app. `bench.compare_commits` also runs this with other commits' apps."""
    try:
        from apps.worker.functions import Work  # noqa: PLC0415 - absent until version 0.2
    except ImportError:
        return sys.modules[__name__]
    return [Work(SPEC, nothing)]


def __getattr__(name: str) -> Celery:
    if name in {"app", "celery"}:
        # the module is called app until version 0.2, and bench.compare_commits runs this with the apps of other commits
        worker = import_module("apps.worker.celery_app" if find_spec("apps.worker.celery_app") else "apps.worker.app")
        made: Celery = worker.create_app(load(WorkerSettings), REGISTRY, _functions())
        return made
    raise AttributeError(name)
