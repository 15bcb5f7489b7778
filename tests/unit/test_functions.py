"""Each task has exactly one function, with its settings and the errors to retry on."""

from types import ModuleType
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import TaskSpec, registry
from apps.worker.celery_app import create_app
from apps.worker.functions import Work, by_task, work, works_of
from tests.harness.simple_tasks import TASKS, WORK_QUEUE, First, Output, first, second

FIRST, SECOND = TASKS.values()


class Settings(BaseSettings):
    pace_s: float


@work(FIRST, settings=Settings, retry_on=(TimeoutError,))
def paced(task: First, settings: Settings) -> Output:
    return Output(name_task=task.name, state=str(settings.pace_s))


def worker_settings() -> WorkerSettings:
    return WorkerSettings(
        celery_broker_url="amqp://worker:long-and-secret@broker/",
        celery_result_backend="redis://:long-and-secret@redis/0",
    )


def test_functions_of_a_module_are_found() -> None:
    module = ModuleType("work")
    vars(module).update(paced=paced, helper=first, Settings=Settings)
    assert works_of(module) == [paced]


def test_decorated_function_can_be_called_directly() -> None:
    assert paced(First(task="first", name="a"), Settings(pace_s=2)).state == "2.0"


def test_worker_calls_the_function_with_its_settings_and_retries_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACE_S", "3")
    app = create_app(worker_settings(), registry(FIRST), [paced])
    task = app.tasks[FIRST.name]
    (settings,) = task.function_settings
    assert task.function(First(task="first", name="a"), settings).state == "3.0"
    assert task.retry_on == (TimeoutError,)


@pytest.mark.parametrize(("value", "says"), [(None, "PACE_S is not set"), ("fast", "PACE_S: Input should be")])
def test_missing_or_invalid_setting_prevents_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str | None, says: str
) -> None:
    monkeypatch.delenv("PACE_S", raising=False)
    if value is not None:
        monkeypatch.setenv("PACE_S", value)
    with pytest.raises(SystemExit, match=says):
        create_app(worker_settings(), registry(FIRST), [paced])


@pytest.mark.parametrize(
    ("works", "says"),
    [
        ([paced], f"Task {WORK_QUEUE}:second has no function: add one with @work"),
        ([paced, Work(FIRST, first), Work(SECOND, second)], f"Task {WORK_QUEUE}:first has two functions"),
        (
            [
                paced,
                Work(SECOND, second),
                Work(TaskSpec(name="a:third", input=First, output=Output, hard_limit_s=1), first),
            ],
            "The function of a:third has no task: define its TaskSpec in a contract.py",
        ),
    ],
)
def test_missing_second_or_unknown_function_prevents_the_start(works: list[Work[Any, Any]], says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        by_task(TASKS, works)
