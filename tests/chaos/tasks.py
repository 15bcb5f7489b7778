"""The tasks of the chaos runs. Each run writes its steps to the effects file, which no fault affects."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from celery import current_task
from pydantic import Field, create_model

from apps.contract.tasks import TaskSpec, registry
from tests.chaos.endings import ENDLESS, ODD_ENDS, RAISED, RETURNED, TOO_LARGE, too_large
from tests.chaos.journal import STARTED, STARTED_STEP, Effect, Journal
from tests.harness.simple_tasks import WORK_QUEUE, NamedInput, Output
from tests.harness.task_functions import works
from tests.harness.tasks import EFFECTS


class Work(NamedInput):
    """Succeeds."""

    task: Literal["work"]
    seconds: Annotated[float, Field(ge=0)]
    note: str = ""


class OlderWork(NamedInput):
    """Work of the previous release, without its last field."""

    task: Literal["work"]
    seconds: Annotated[float, Field(ge=0)]


class Added(NamedInput):
    """A task that the previous release does not have."""

    task: Literal["added"]


class Flaky(NamedInput):
    """Raises a transient error `failures` times."""

    task: Literal["flaky"]
    failures: int


class Fail(NamedInput):
    """Ends as FAILURE."""

    task: Literal["fail"]


class Poison(NamedInput):
    """Kills its process each time."""

    task: Literal["poison"]


class Idle(NamedInput):
    """A task of an attacker; writes no steps."""

    task: Literal["idle"]
    seconds: Annotated[float, Field(ge=0)]


class Produced(Output):
    """An Output with data."""

    data: str


def _spec(name: str, input_: type[NamedInput]) -> TaskSpec:
    return TaskSpec(name=name, input=input_, output=Output, hard_limit_s=120)


def _odd(task: str) -> TaskSpec:
    fields: Any = {"task": (Literal[task], ...)}
    model = create_model(task, __base__=NamedInput, **fields)
    return TaskSpec(name=f"{WORK_QUEUE}:{task}", input=model, output=Produced, hard_limit_s=120)


def _endless(task: str) -> TaskSpec:
    fields: Any = {"task": (Literal[task], ...)}
    model = create_model(task, __base__=NamedInput, **fields)
    return TaskSpec(name=f"{WORK_QUEUE}:{task}", input=model, output=Output, hard_limit_s=2, soft_limit_s=1)


# Environment variable of a worker with the contract of the previous release.
OLDER = "CHAOS_OLDER"
_CHANGED = (
    (_spec(f"{WORK_QUEUE}:work", OlderWork),)
    if os.environ.get(OLDER)
    else (_spec(f"{WORK_QUEUE}:work", Work), _spec("celery:added", Added))
)
TASKS = registry(
    *_CHANGED,
    _spec(f"{WORK_QUEUE}:flaky", Flaky),
    _spec(f"{WORK_QUEUE}:fail", Fail),
    _spec("celery:poison", Poison),
    _spec(f"{WORK_QUEUE}:idle", Idle),
    *map(_odd, ODD_ENDS),
    *map(_endless, ENDLESS),
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
    # unique per run, so that a second final state is visible
    return Output(name_task=name, state=f"{os.getpid()}-{time.time_ns()}")


def work(task: Work) -> Output:
    _effect(task.name, "begun")
    time.sleep(task.seconds)
    return _done(task.name)


def added(task: Added) -> Output:
    _effect(task.name, "begun")
    return _done(task.name)


def flaky(task: Flaky) -> Output:
    _effect(task.name, "begun")
    if current_task.request.retries < task.failures:
        raise ConnectionError("not yet")
    return _done(task.name)


def fail(task: Fail) -> Output:
    _effect(task.name, "begun")
    raise ValueError(task.name)


def poison(task: Poison) -> Output:
    _effect(task.name, "begun")
    os.kill(os.getpid(), signal.SIGKILL)
    return _done(task.name)


def swallow(task: NamedInput) -> Output:
    _effect(task.name, "begun")
    while True:
        with suppress(BaseException):
            time.sleep(60)


def spawn(task: NamedInput) -> Output:
    """Start a program in its own session, and another one whose parent has ended."""
    program = subprocess.Popen(STARTED, start_new_session=True)
    shell = ["setsid", "sh", "-c", f"{' '.join(STARTED)} >/dev/null 2>&1 & echo $!"]
    orphan = subprocess.run(shell, check=True, capture_output=True, text=True).stdout
    for pid in (program.pid, int(orphan)):
        _effect(task.name, f"{STARTED_STEP}{pid}")
    return swallow(task)


def idle(task: Idle) -> Output:
    time.sleep(task.seconds)
    return Output(name_task=task.name, state="done")


def _raising(error: Callable[[str], BaseException]) -> Callable[[NamedInput], Produced]:
    def end(task: NamedInput) -> Produced:
        _effect(task.name, "begun")
        _effect(task.name, "done")  # a second run after an error is a duplicate too
        raise error(task.name)

    return end


def _returning(data: Callable[[str], str]) -> Callable[[NamedInput], Produced]:
    def end(task: NamedInput) -> Produced:
        _effect(task.name, "begun")
        return Produced(**_done(task.name).model_dump(), data=data(task.name))

    return end


for _task, _error in RAISED.items():
    globals()[_task] = _raising(_error)
for _task, _data in {**RETURNED, TOO_LARGE: too_large}.items():
    globals()[_task] = _returning(_data)

WORKS = works(TASKS, sys.modules[__name__])
