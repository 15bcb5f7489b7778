"""What the tasks do: one plain function per entry of `apps.contract.tasks`, under its short name.

A function gets its validated input and the settings, and returns its output model. It may run more than once
(at-least-once delivery), so what it does should be repeatable. Errors listed as `transient` in its entry are
retried; any other ends the task as FAILURE with its type and message.
"""

import time

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import Output, Task1, Task2


def task_1(task: Task1, settings: WorkerSettings) -> Output:
    """The longer example: sleeps `TASK_1_S` seconds."""
    time.sleep(settings.task_1_s)
    return Output(name_task=task.name, state="done")


def task_2(task: Task2, settings: WorkerSettings) -> Output:
    """The shorter example: sleeps `TASK_2_S` seconds."""
    time.sleep(settings.task_2_s)
    return Output(name_task=task.name, state="done")
