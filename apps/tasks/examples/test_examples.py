"""The example tasks keep their original names, fields and defaults."""

from apps.contract.example import example_input
from apps.tasks.examples.contract import TASK_1, TASK_2, Output, Task1, Task2
from apps.tasks.examples.work import Settings, task_1, task_2


def test_names_are_the_originals() -> None:
    assert [spec.name for spec in (TASK_1, TASK_2)] == ["Test_Query:task_1", "Test_Query:task_2"]


def test_input_and_output_have_the_originals_fields() -> None:
    assert set(Task1.model_fields) == set(Task2.model_fields) == {"task", "name"}
    assert set(Output.model_fields) == {"name_task", "state"}


def test_limits_leave_time_for_the_default_durations() -> None:
    settings = Settings()
    assert (settings.task_1_s, settings.task_2_s) == (15, 10)
    assert min(TASK_1.hard_limit_s, TASK_2.hard_limit_s) > 15


def test_their_models_have_examples() -> None:
    assert example_input(Task1) == {"task": "task_1", "name": "abc"}
    assert example_input(Task2) == {"task": "task_2", "name": "abc"}


def test_each_answers_with_the_name_it_was_given() -> None:
    settings = Settings(task_1_s=0, task_2_s=0)
    assert task_1(Task1(task="task_1", name="a"), settings) == Output(name_task="a", state="done")
    assert task_2(Task2(task="task_2", name="b"), settings) == Output(name_task="b", state="done")
