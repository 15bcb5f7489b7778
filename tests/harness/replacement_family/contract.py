"""Two tasks that only sleep."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from apps.contract import topology
from apps.contract.tasks import Input, TaskSpec


class Nap(Input):
    task: Literal["nap"]
    name: Annotated[str, Field(examples=["abc"])]


class Rest(Input):
    task: Literal["rest"]
    name: Annotated[str, Field(examples=["abc"])]


class Slept(BaseModel):
    name: str


QUEUE = topology.WORK_QUEUES[0]
NAP = TaskSpec(name=f"{QUEUE}:nap", input=Nap, output=Slept, hard_limit_s=90)
REST = TaskSpec(name=f"{QUEUE}:rest", input=Rest, output=Slept, hard_limit_s=90)
