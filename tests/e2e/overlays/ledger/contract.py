# ruff: noqa: INP001 - no package: API and workers have this file as apps/tasks/ledger/contract.py
"""Tasks whose effects are counted in Redis: of a second, and of five."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract import topology
from apps.contract.tasks import Input, TaskSpec


class Counted(Input):
    """What both tasks have: the name under which they are counted."""

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
