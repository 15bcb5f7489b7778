"""The shapes of shapes.toml: how many users there are when, and what is asked of the system meanwhile."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.tasks.contract import LONG, SHORT
from ops.command import Unusable

FILE = Path(__file__).parent / "shapes.toml"
# How Locust's process is told which shape, and of which file.
SHAPE, SHAPES = "LOAD_SHAPE", "LOAD_SHAPES"
SLACK_S = 5.0
UNLIMITED_S = 60.0


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mix(_Data):
    """Who the users are and what they post: weights, and shares of one."""

    users: dict[str, int]
    tasks: dict[str, int]
    batch_tasks: int
    keyed_share: float = Field(ge=0, le=1)
    slow_idle_s: tuple[float, float]


class Local(_Data):
    """What is started where there is no host: API processes, worker processes, and tasks at once in each of those."""

    apis: int = Field(ge=1)
    workers: int = Field(ge=1)
    threads: int = Field(ge=1)
    pool: Literal["threads", "prefork"] = "threads"


class Limits(_Data):
    """The limits of the gates that depend on the shape; see shapes.toml."""

    oldest_waiting_s: float
    behind_s: float
    accept_p95_ratio: float
    result_p95_ratio: float


class Shape(_Data):
    """One load. Times in seconds."""

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
        """From the first user to the end of the last stage."""
        return sum(seconds for seconds, _ in self.stages)

    @property
    def users_max(self) -> int:
        return max(users for _, users in self.stages)

    @property
    def task_s(self) -> dict[str, float]:
        """What each task takes, by its short name."""
        return {LONG.short_name: self.long_s, SHORT.short_name: self.short_s}

    @property
    def longest_task_s(self) -> float:
        return max(self.task_s.values())

    @property
    def patience_s(self) -> float:
        """How long after the load a task may take to its result: what takes longer is late by every gate there is."""
        return self.longest_task_s + (self.limits.oldest_waiting_s if self.limits else UNLIMITED_S) + SLACK_S

    def holds(self) -> list[tuple[float, float, int]]:
        """The stages in which the number of users stands: begin, end, users."""
        found, begun_s, before = [], 0.0, 0
        for seconds, users in self.stages:
            if users == before and users:
                found.append((begun_s, begun_s + seconds, users))
            begun_s, before = begun_s + seconds, users
        return found

    def users_at(self, at_s: float) -> int | None:
        """How many users there should be; None when the last stage is over."""
        begun_s, before = 0.0, 0
        for seconds, users in self.stages:
            if at_s < begun_s + seconds:
                return before + round((users - before) * (at_s - begun_s) / seconds)
            begun_s, before = begun_s + seconds, users
        return None


def load(name: str, environment: Mapping[str, str] = os.environ) -> Shape:
    """Read a shape of the project's, or of the file that LOAD_SHAPES names.

    LONG_S and SHORT_S in the environment change what the tasks take. Unusable if there is none of that name, or if it
    is none.
    """
    file = Path(environment.get(SHAPES, FILE))
    try:
        document = tomllib.loads(file.read_text())
        shapes = document["shapes"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as exc:
        raise Unusable(f"{file} has no shapes ({exc}): see {FILE.name} for how they are written.") from None
    if name not in shapes:
        raise Unusable(f"There is no shape {name!r}: choose one of {', '.join(shapes)}, or add it to {file.name}.")
    times = {key.lower(): environment[key] for key in ("LONG_S", "SHORT_S") if key in environment}
    try:
        return Shape.model_validate({"name": name, "mix": document.get("mix"), **shapes[name], **times})
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Unusable(f"The shape {name} in {file.name} is none: {place}: {first['msg']}.") from None
