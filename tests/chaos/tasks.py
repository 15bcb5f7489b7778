"""The tasks that are posted. Each run leaves its steps in the effects file, which no fault touches."""

import os
import signal
import sys
import time
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from celery import current_task
from pydantic import Field

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import NamedInput, Output, TaskSpec, registry
from tests.chaos.journal import Effect, Journal
from tests.harness.tasks import EFFECTS


class Work(NamedInput):
    """Ends well."""

    task: Literal["work"]
    seconds: Annotated[float, Field(ge=0)]


class Flaky(NamedInput):
    """Meets a transient error so many times."""

    task: Literal["flaky"]
    failures: int


class Fail(NamedInput):
    """Ends as FAILURE."""

    task: Literal["fail"]


class Poison(NamedInput):
    """Kills the process that runs it, each time."""

    task: Literal["poison"]


def _spec(name: str, input_: type[NamedInput]) -> TaskSpec:
    return TaskSpec(name=name, input=input_, output=Output, hard_limit_s=120, transient=(ConnectionError,))


TASKS = registry(
    _spec("Test_Query:work", Work),
    _spec("Test_Query:flaky", Flaky),
    _spec("Test_Query:fail", Fail),
    _spec("celery:poison", Poison),
)


@cache
def _journal() -> Journal:
    return Journal(Path(os.environ[EFFECTS]))


def _effect(name: str, step: str) -> None:
    request = current_task.request
    worker = request.hostname.partition("@")[0]
    _journal().append(
        Effect(name, request.id, request.publish_id, step, worker, os.getpid(), request.retries, time.time())
    )


def _done(name: str) -> Output:
    _effect(name, "done")
    # no two runs have the same result: a final state that is written twice shows
    return Output(name_task=name, state=f"{os.getpid()}-{time.time_ns()}")


def work(task: Work, settings: WorkerSettings) -> Output:  # noqa: ARG001 - the signature of every task
    _effect(task.name, "begun")
    time.sleep(task.seconds)
    return _done(task.name)


def flaky(task: Flaky, settings: WorkerSettings) -> Output:  # noqa: ARG001
    _effect(task.name, "begun")
    if current_task.request.retries < task.failures:
        raise ConnectionError("not yet")
    return _done(task.name)


def fail(task: Fail, settings: WorkerSettings) -> Output:  # noqa: ARG001
    _effect(task.name, "begun")
    raise ValueError(task.name)


def poison(task: Poison, settings: WorkerSettings) -> Output:  # noqa: ARG001
    _effect(task.name, "begun")
    os.kill(os.getpid(), signal.SIGKILL)
    return _done(task.name)


this_module = sys.modules[__name__]
