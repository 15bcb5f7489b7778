"""The registry of tasks, and that everything else agrees with it."""

from typing import Literal

import pytest
from pydantic import ValidationError

from apps.contract import topology
from apps.contract.tasks import TASKS, NamedInput, Output, Task1, Task2, TaskSpec, input_adapter, registry
from apps.worker import tasks as functions


class Other(NamedInput):
    task: Literal["other"]


def spec(name: str) -> TaskSpec:
    return TaskSpec(name=name, input=Other, output=Output, hard_limit_s=1)


def test_original_tasks_are_there() -> None:
    assert {task.name for task in TASKS.values()} == {"Test_Query:task_1", "Test_Query:task_2"}


def test_every_task_has_a_function_and_a_queue_that_exists() -> None:
    for name, task in TASKS.items():
        assert callable(getattr(functions, name))
        assert task.queue in topology.WORK_QUEUES


def test_limits_leave_time_for_the_default_durations() -> None:
    assert min(task.hard_limit_s for task in TASKS.values()) > 15


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([spec("other")], "must be '<queue>:<short name>'"),
        ([spec(":other")], "must be '<queue>:<short name>'"),
        ([spec("a:other"), spec("b:other")], "two tasks are called 'other'"),
        ([spec("a:another")], "Other.task must be Literal\\['another'\\]"),
    ],
)
def test_contradiction_is_named(specs: list[TaskSpec], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        registry(*specs)


def test_inputs_are_told_apart_by_task() -> None:
    adapter = input_adapter(TASKS)
    assert isinstance(adapter.validate_python({"task": "task_1", "name": "a"}), Task1)
    assert isinstance(adapter.validate_python({"task": "task_2", "name": "a"}), Task2)
    with pytest.raises(ValidationError, match="'task_1', 'task_2'"):
        adapter.validate_python({"task": "task_3", "name": "a"})


def test_registry_of_one_task_works_too() -> None:
    assert input_adapter(registry(spec("a:other"))).validate_python({"task": "other", "name": "a"})
