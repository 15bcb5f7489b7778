"""The input that all compared servers validate, and the output of the benchmark task, which does nothing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apps.contract.tasks import Input

# the body of a client's post
BODY = '{"task":"nothing","name":"abc"}'


class Nothing(Input):
    """Input of the benchmark task."""

    task: Literal["nothing"]
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Done(BaseModel):
    """Output of the benchmark task."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name_task: str
    state: str
