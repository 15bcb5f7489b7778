"""The registry of tasks reports contradictions, and inputs are discriminated by their task."""

from typing import Literal

import pytest
from pydantic import ValidationError

from apps.contract.tasks import TaskSpec, input_adapter, registry
from tests.harness.simple_tasks import TASKS, First, NamedInput, Output, Second


class Other(NamedInput):
    task: Literal["other"]


def spec(name: str, hard_limit_s: int = 1, soft_limit_s: int | None = None) -> TaskSpec:
    return TaskSpec(name=name, input=Other, output=Output, hard_limit_s=hard_limit_s, soft_limit_s=soft_limit_s)


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([spec("other")], "must be '<queue>:<short name>'"),
        ([spec(":other")], "must be '<queue>:<short name>'"),
        ([spec("a:other"), spec("b:other")], "two tasks are called 'other'"),
        ([spec("a:other", 0)], "must hold"),
        ([spec("a:other", 1501)], "must hold"),
        ([spec("a:other", 5, 5)], "must hold"),
        ([spec("a:another")], "Other.task must be Literal\\['another'\\]"),
    ],
)
def test_contradiction_in_a_spec_is_named(specs: list[TaskSpec], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        registry(*specs)


def test_input_model_is_chosen_by_task() -> None:
    adapter = input_adapter(TASKS)
    assert isinstance(adapter.validate_python({"task": "first", "name": "a"}), First)
    assert isinstance(adapter.validate_python({"task": "second", "name": "a"}), Second)
    with pytest.raises(ValidationError, match="'first', 'second'"):
        adapter.validate_python({"task": "third", "name": "a"})


def test_adapter_works_with_a_single_task() -> None:
    assert input_adapter(registry(spec("a:other"))).validate_python({"task": "other", "name": "a"})
