"""The next version of the test tasks. `tests.harness.next_version_api` and `tests.harness.next_version_worker` run it.

Compared with the present version: a new field, a new task, a new queue, a removed task, a field with another type.
"""

import sys
from typing import Literal

from apps.contract.tasks import TaskSpec, registry
from tests.harness import tasks
from tests.harness.simple_tasks import WORK_QUEUE, NamedInput, Output
from tests.harness.task_functions import works
from tests.harness.tasks import TEST_TASKS, Sleep

QUEUE = "images"
"""Only this version has this queue: `declare_queue` declares it as the next version's definitions would."""


class NextSleep(Sleep):
    colour: str = "red"


class NextCount(NamedInput):
    task: Literal["count"]
    digits: str


class Later(NamedInput):
    task: Literal["later"]


class Resize(NamedInput):
    task: Literal["resize"]


def _spec(name: str, input_: type[NamedInput]) -> TaskSpec:
    return TaskSpec(name=name, input=input_, output=Output, hard_limit_s=120)


_KEPT = [spec for name, spec in TEST_TASKS.items() if name not in {"sleep", "count", "elsewhere"}]
NEXT_TASKS = registry(
    *_KEPT,
    _spec(f"{WORK_QUEUE}:sleep", NextSleep),
    _spec(f"{WORK_QUEUE}:count", NextCount),
    _spec(f"{WORK_QUEUE}:later", Later),
    _spec(f"{QUEUE}:resize", Resize),
)


def sleep(task: NextSleep) -> Output:
    return Output(name_task=task.name, state=task.colour)


def count(task: NextCount) -> Output:
    return Output(name_task=task.name, state=task.digits)


def later(task: Later) -> Output:
    return Output(name_task=task.name, state="done")


def resize(task: Resize) -> Output:
    return Output(name_task=task.name, state="done")


NEXT_WORKS = works(NEXT_TASKS, sys.modules[__name__], tasks)
