"""Inputs, outputs and specs of the example tasks."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract.tasks import Input, TaskSpec


class NamedInput(Input):
    """Work on one name."""

    # 255 characters: the longest usual file or host name. No control characters: file systems and databases refuse NUL.
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["abc"])]


class Task1(NamedInput):
    """Input of `Test_Query:task_1`."""

    task: Literal["task_1"]


class Task2(NamedInput):
    """Input of `Test_Query:task_2`."""

    task: Literal["task_2"]


class Output(BaseModel):
    """Output of both example tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name_task: str
    state: str


# They sleep 15 s and 10 s: a task that runs for 90 s hangs.
TASK_1 = TaskSpec(name="Test_Query:task_1", input=Task1, output=Output, hard_limit_s=90)
TASK_2 = TaskSpec(name="Test_Query:task_2", input=Task2, output=Output, hard_limit_s=90)
