"""Two tasks that only sleep, for tests that need no others."""

import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract import topology
from apps.contract.tasks import Input, TaskSpec, registry

# A queue that the workers of this project consume; a team may have renamed it.
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
