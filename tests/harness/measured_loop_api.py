"""The API with a gauge of the event loop's longest step.

`uvicorn --factory tests.harness.measured_loop_api:create_app`.

A step is one callback of the loop, measured in CPU time. Needs asyncio's loop (`UVICORN_LOOP=asyncio`), whose steps
are Python functions.
"""

import logging
import os
import time
from asyncio import events
from typing import Annotated, Any, Literal, Union

from fastapi import FastAPI
from prometheus_client import Gauge
from pydantic import Field

from apps.api import app
from apps.contract.tasks import Input, TaskSpec, registry
from tests.harness.simple_tasks import TASKS, Output

# If this environment variable is set, the API also has the tasks whose inputs take long to validate.
HEAVY = "TEST_HEAVY"
LOGGED_S = 0.02
# The longest step that tests allow.
STEP_MAX_S = 0.05

log = logging.getLogger(__name__)


class Tree(Input):
    """A recursive input."""

    task: Literal["tree"]
    children: list["Tree"] | dict[str, "Tree"] | None = None
    value: Any = None


class Union5(Input):
    """An input whose elements cause five errors each if none of the types matches."""

    task: Literal["union5"]
    values: list[Union[list[str], dict[str, str], bytes, Tree, Literal["a", "b"]]]  # noqa: UP007 - teams use it too


class Numbers(Input):
    """An input with one number per element."""

    task: Literal["numbers"]
    values: list[float]
    named: dict[str, int] | None = None


class Patterned(Input):
    """An input with texts that are validated by a pattern."""

    task: Literal["patterned"]
    texts: list[Annotated[str, Field(pattern=r"^([a-z]+-?)+$")]]


_MODELS = (Tree, Union5, Numbers, Patterned)
_SPECS = (TaskSpec(name=f"celery:{one.__name__.lower()}", input=one, output=Output, hard_limit_s=9) for one in _MODELS)


class _Longest:
    """The longest step since the last time the metric was read."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._run = events.Handle._run  # noqa: SLF001 - asyncio calls it for each step

    def install(self) -> None:
        def run(handle: events.Handle) -> None:
            started_s = time.thread_time()
            self._run(handle)
            took_s = time.thread_time() - started_s
            if took_s > LOGGED_S:
                log.warning("long step", extra={"fields": {"ms": took_s * 1000, "step": repr(handle)}})
            self._seconds = max(self._seconds, took_s)

        events.Handle._run = run  # type: ignore[method-assign,assignment]  # noqa: SLF001 - typeshed has a second self
        gauge = Gauge("test_longest_step_seconds", "CPU time of the event loop's longest step since the last reading")
        gauge.set_function(self._read)

    def _read(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def create_app() -> FastAPI:
    _Longest().install()
    return app.create_app(registry=registry(*TASKS.values(), *_SPECS) if HEAVY in os.environ else TASKS)
