"""The shapes of shapes.toml: the number of users over time, their behaviour, and the limits of the gates."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.tasks.contract import LONG, SHORT
from ops.command import Unusable

FILE = Path(__file__).parent / "shapes.toml"
# Environment variables for Locust's process: the name of the shape, and the file of shapes.
SHAPE, SHAPES = "LOAD_SHAPE", "LOAD_SHAPES"
SLACK_S = 5.0
UNLIMITED_S = 60.0


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mix(_Data):
    """The kinds of users and of tasks. `users` and `tasks` are weights; `keyed_share` is from 0 to 1."""

    users: dict[str, int]
    tasks: dict[str, int]
    batch_tasks: int
    keyed_share: float = Field(ge=0, le=1)
    slow_idle_s: tuple[float, float]


class Local(_Data):
    """The size of the local system: API processes, worker processes, and concurrent tasks per worker process."""

    apis: int = Field(ge=1)
    workers: int = Field(ge=1)
    threads: int = Field(ge=1)
    pool: Literal["threads", "prefork"] = "threads"


class Limits(_Data):
    """The limits of the gates. shapes.toml describes them."""

    oldest_waiting_s: float
    behind_s: float
    accept_p95_ratio: float
    result_p95_ratio: float


class Shape(_Data):
    """One load. Times are in seconds. `stages` are pairs (duration, users at the end)."""

    name: str
    about: str
    stages: tuple[tuple[float, int], ...]
    think_s: tuple[float, float]
    long_s: float
    short_s: float
    intended: frozenset[int] = frozenset()
    local: Local
    limits: Limits | None = None
    mix: Mix

    @property
    def length_s(self) -> float:
        """The sum of the stages' durations."""
        return sum(seconds for seconds, _ in self.stages)

    @property
    def users_max(self) -> int:
        return max(users for _, users in self.stages)

    @property
    def task_s(self) -> dict[str, float]:
        """Short name of a task -> its duration."""
        return {LONG.short_name: self.long_s, SHORT.short_name: self.short_s}

    @property
    def longest_task_s(self) -> float:
        return max(self.task_s.values())

    @property
    def patience_s(self) -> float:
        """How long to wait for results after the load. Results that come later fail every gate on time."""
        return self.longest_task_s + (self.limits.oldest_waiting_s if self.limits else UNLIMITED_S) + SLACK_S

    def holds(self) -> list[tuple[float, float, int]]:
        """The stages with a constant number of users, as (start, end, users)."""
        found, begun_s, before = [], 0.0, 0
        for seconds, users in self.stages:
            if users == before and users:
                found.append((begun_s, begun_s + seconds, users))
            begun_s, before = begun_s + seconds, users
        return found

    def users_at(self, at_s: float) -> int | None:
        """The number of users at a time; None after the last stage."""
        begun_s, before = 0.0, 0
        for seconds, users in self.stages:
            if at_s < begun_s + seconds:
                return before + round((users - before) * (at_s - begun_s) / seconds)
            begun_s, before = begun_s + seconds, users
        return None


def load(name: str, environment: Mapping[str, str] = os.environ) -> Shape:
    """Read a shape from shapes.toml, or from the file LOAD_SHAPES.

    LONG_S and SHORT_S in the environment override the durations of the tasks. Raises Unusable if the file cannot be
    read, or the shape does not exist or is invalid.
    """
    file = Path(environment.get(SHAPES, FILE))
    try:
        document = tomllib.loads(file.read_text())
        shapes = document["shapes"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as exc:
        raise Unusable(f"{file} has no shapes ({exc}): write them as in loadtest/{FILE.name}.") from None
    if name not in shapes:
        raise Unusable(f"There is no shape {name!r}: choose one of {', '.join(shapes)}, or add it to {file.name}.")
    times = {key.lower(): environment[key] for key in ("LONG_S", "SHORT_S") if key in environment}
    try:
        return Shape.model_validate({"name": name, "mix": document.get("mix"), **shapes[name], **times})
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Unusable(f"The shape {name} in {file.name} is invalid: {place}: {first['msg']}.") from None
