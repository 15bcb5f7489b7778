# ruff: noqa: INP001 - not in a package: the API and the workers mount it as apps/tasks/ledger/contract.py
"""Tasks whose effects are counted in Redis: one takes one second, the other five."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract import topology
from apps.contract.tasks import Input, TaskSpec


class Counted(Input):
    """The field of both tasks: the name under which a task is counted."""

    name: Annotated[str, Field(min_length=1, max_length=255)]


class Short(Counted):
    task: Literal["counted_short"]


class Long(Counted):
    task: Literal["counted_long"]


class Output(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str


QUEUE = topology.WORK_QUEUES[0]
SHORT = TaskSpec(name=f"{QUEUE}:counted_short", input=Short, output=Output, hard_limit_s=90)
LONG = TaskSpec(name=f"{QUEUE}:counted_long", input=Long, output=Output, hard_limit_s=90)
