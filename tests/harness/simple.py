"""Two tasks that only sleep, for tests that need no more, and the functions of test tasks as the worker wants them."""

import time
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract import topology
from apps.contract.tasks import Input, Registry, TaskSpec, registry
from apps.worker.functions import Work

# A queue of this project that workers consume, whatever a team has called it.
WORK_QUEUE = topology.WORK_QUEUES[0]


class NamedInput(Input):
    """The input of most test tasks."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["abc"])]


class Output(BaseModel):
    """The output of most test tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name_task: str
    state: str


class First(NamedInput):
    task: Literal["first"]


class Second(NamedInput):
    task: Literal["second"]


TASKS = registry(
    TaskSpec(name=f"{WORK_QUEUE}:first", input=First, output=Output, hard_limit_s=90),
    TaskSpec(name=f"{WORK_QUEUE}:second", input=Second, output=Output, hard_limit_s=90),
)


def first(task: NamedInput) -> Output:
    time.sleep(0.2)
    return Output(name_task=task.name, state="done")


def second(task: NamedInput) -> Output:
    time.sleep(0.1)
    return Output(name_task=task.name, state="done")


def works(
    tasks: Registry, *modules: ModuleType, retry_on: Mapping[str, tuple[type[Exception], ...]] | None = None
) -> list[Work[Any, Any]]:
    """The function of each task: that of its name in the first module that has one. Retried are connection errors."""

    def function(name: str) -> Any:
        return next(getattr(module, name) for module in modules if hasattr(module, name))

    retried = retry_on or {}
    return [Work(spec, function(name), retried.get(name, (ConnectionError,))) for name, spec in tasks.items()]
