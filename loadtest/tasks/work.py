"""The functions of the load test's tasks. Imported as `apps.tasks.load.work`, hence the relative import."""

import time

from apps.worker.functions import work

from .contract import LONG, SHORT, Sleep, Slept


def _sleep(task: Sleep) -> Slept:
    time.sleep(task.seconds)
    return Slept(name=task.name)


load_long = work(LONG)(_sleep)
load_short = work(SHORT)(_sleep)
