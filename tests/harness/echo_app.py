"""API and worker with tasks of generated models. Each task returns the input that it received.

`uvicorn --factory tests.harness.echo_app:create_app`, `celery -A tests.harness.echo_app worker`; TEST_MODELS contains
the specifications as JSON.
"""

import json
import os
from hashlib import blake2b
from typing import Literal

from celery import Celery
from fastapi import FastAPI
from pydantic import field_validator

from apps.api import app as api
from apps.contract.settings import WorkerSettings, load
from apps.contract.tasks import Input, Registry, TaskSpec, registry
from apps.worker import celery_app as worker
from apps.worker.functions import Work
from tests.harness.random_models import decoded_spec, exact, made_tasks
from tests.harness.simple_tasks import WORK_QUEUE, Output
from tests.harness.tasks import effect

MODELS, MOOD = "TEST_MODELS", "TEST_MOOD"


class Moody(Input):
    """Its validator is impure: it depends on the environment of the process."""

    task: Literal["moody_0"]
    name: str

    @field_validator("name")
    @classmethod
    def _judge(cls, name: str) -> str:
        if MOOD in os.environ:
            raise ValueError(os.environ[MOOD])
        return name


def tasks() -> Registry:
    made = made_tasks([decoded_spec(one) for one in json.loads(os.environ[MODELS])])
    moody = TaskSpec(name=f"{WORK_QUEUE}:moody_0", input=Moody, output=Output, hard_limit_s=60)
    return registry(*made.values(), moody)


def answer(task: Input) -> Output:
    """Return the received input; tasks of odd-numbered models only at the second try, whose message Celery wrote."""
    received = exact(task)
    if int(task.task.rpartition("_")[2]) % 2:
        digest = blake2b(received.encode(), digest_size=16).hexdigest()
        if effect(digest, "tried") == 0:
            raise ConnectionError("not yet")
    return Output(name_task=received, state="done")


def create_app() -> FastAPI:
    return api.create_app(registry=tasks())


def __getattr__(name: str) -> Celery:
    if name not in {"app", "celery"}:
        raise AttributeError(name)
    registry = tasks()
    works = [Work(spec, answer, retry_on=(ConnectionError,)) for spec in registry.values()]
    app = worker.create_app(load(WorkerSettings), registry, works)
    globals()["app"] = app
    return app
