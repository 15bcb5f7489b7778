"""Functions of the example tasks, which sleep."""

import time
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from apps.tasks.examples.contract import TASK_1, TASK_2, Output, Task1, Task2
from apps.worker.functions import work


class Settings(BaseSettings):
    """Seconds that each task sleeps: `TASK_1_S` and `TASK_2_S` in the worker's environment."""

    task_1_s: Annotated[float, Field(ge=0)] = 15.0
    task_2_s: Annotated[float, Field(ge=0)] = 10.0


@work(TASK_1, settings=Settings, retry_on=(ConnectionError, TimeoutError))
def task_1(task: Task1, settings: Settings) -> Output:
    """Sleep for TASK_1_S."""
    time.sleep(settings.task_1_s)
    return Output(name_task=task.name, state="done")


@work(TASK_2, settings=Settings, retry_on=(ConnectionError, TimeoutError))
def task_2(task: Task2, settings: Settings) -> Output:
    """Sleep for TASK_2_S."""
    time.sleep(settings.task_2_s)
    return Output(name_task=task.name, state="done")
