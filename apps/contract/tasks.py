"""The specification of a task: input, output, queue and limits. The tasks themselves are in apps/tasks.

The worker validates the client's JSON again, so validators must be pure: docs/api.md, "Models".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from apps.contract.results import CEILING_BYTES
from apps.contract.states import FAILURE_MESSAGE_BOUNDS_CHARS

# After 30 minutes, RabbitMQ before 4.3 considers a consumer stuck and redelivers its message.
LIMIT_MAX_S = 1500


class Input(BaseModel):
    """Base class of all inputs. `task` is the task's short name, which discriminates the inputs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One kind of task.

    `name` is `<queue>:<short name>`. At the hard limit, the task's process and its descendants are killed, and the
    record becomes FAILURE; the soft limit raises `SoftTimeLimitExceeded` inside the task before that. Both need the
    prefork pool: threads cannot be killed (docs/tasks.md).
    """

    name: str
    input: type[Input]
    output: type[BaseModel]
    hard_limit_s: int
    soft_limit_s: int | None = None
    result_max_bytes: int | None = None
    """Overrides `RESULT_MAX_BYTES` for the result as JSON; a larger one is the FAILURE `ResultTooLarge`."""
    failure_message_max_chars: int | None = None
    """Overrides `FAILURE_MESSAGE_MAX`, the longest message of a FAILURE; head and tail of a longer one are kept."""

    @property
    def queue(self) -> str:
        return self.name.partition(":")[0]

    @property
    def short_name(self) -> str:
        return self.name.partition(":")[2]


Registry = Mapping[str, TaskSpec]
"""Short name -> task."""


def registry(*specs: TaskSpec) -> Registry:
    """Index tasks by their short name.

    Raises ValueError if a spec is invalid or conflicts with another one.
    """
    tasks: dict[str, TaskSpec] = {}
    for spec in specs:
        if not spec.queue or not spec.short_name:
            raise ValueError(f"task name {spec.name!r} must be '<queue>:<short name>'")
        if not (spec.soft_limit_s or 0) < spec.hard_limit_s <= LIMIT_MAX_S:
            raise ValueError(f"{spec.name}: 0 < soft_limit_s < hard_limit_s <= {LIMIT_MAX_S} must hold")
        if spec.result_max_bytes is not None and not 0 < spec.result_max_bytes <= CEILING_BYTES:
            raise ValueError(f"{spec.name}: 0 < result_max_bytes <= {CEILING_BYTES} must hold")
        least, most = FAILURE_MESSAGE_BOUNDS_CHARS
        if spec.failure_message_max_chars is not None and not least <= spec.failure_message_max_chars <= most:
            raise ValueError(f"{spec.name}: {least} <= failure_message_max_chars <= {most} must hold")
        if spec.short_name in tasks:
            raise ValueError(f"two tasks are called {spec.short_name!r}")
        annotation: Any = spec.input.model_fields["task"].annotation
        if annotation != Literal[spec.short_name]:
            raise ValueError(f"{spec.input.__name__}.task must be Literal[{spec.short_name!r}]")
        tasks[spec.short_name] = spec
    return tasks


class _ToldApartByTask:
    """The schema of a union of inputs, discriminated by their short names.

    Pydantic's `Field(discriminator=...)` reads the names from the models, and refuses models with a before-validator
    for `task`, such as `field_validator("*", mode="before")`.
    """

    def __init__(self, tasks: Registry) -> None:
        self._tasks = tasks

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {short_name: handler.generate_schema(spec.input) for short_name, spec in self._tasks.items()}
        return core_schema.tagged_union_schema(choices, discriminator="task")


def input_union(tasks: Registry) -> Any:
    """The union of all inputs, discriminated by `task`."""
    if len(tasks) == 1:  # a single input needs no discriminator
        return next(iter(tasks.values())).input
    return Annotated[Input, _ToldApartByTask(tasks)]


def input_adapter(tasks: Registry) -> TypeAdapter[Input]:
    """A validator for the input of any task."""
    return TypeAdapter(input_union(tasks))
