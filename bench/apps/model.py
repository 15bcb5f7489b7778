"""The input that all compared servers validate, and the output of the task that does nothing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract.tasks import Input

# What a client sends.
BODY = '{"task":"nothing","name":"abc"}'


class Nothing(Input):
    """Work on one name."""

    task: Literal["nothing"]
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Done(BaseModel):
    """What the task returns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name_task: str
    state: str
