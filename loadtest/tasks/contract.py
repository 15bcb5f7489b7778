"""The models and specs of the load test's tasks. Each task sleeps for the time in its input."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract import topology
from apps.contract.tasks import Input, TaskSpec

HARD_LIMIT_S = 90


class Sleep(Input):
    """Base class of both inputs."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["abc"])]
    seconds: Annotated[float, Field(ge=0, lt=HARD_LIMIT_S, examples=[1])]


class LongSleep(Sleep):
    """Input of `load_long`."""

    task: Literal["load_long"]


class ShortSleep(Sleep):
    """Input of `load_short`."""

    task: Literal["load_short"]


class Slept(BaseModel):
    """Output of both tasks: the name in the input, which shows that a result belongs to its task."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str


# the first work queue, because a team may rename queues
_QUEUE = topology.WORK_QUEUES[0]
LONG = TaskSpec(name=f"{_QUEUE}:load_long", input=LongSleep, output=Slept, hard_limit_s=HARD_LIMIT_S)
SHORT = TaskSpec(name=f"{_QUEUE}:load_short", input=ShortSleep, output=Slept, hard_limit_s=HARD_LIMIT_S)
