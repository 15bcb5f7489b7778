"""The functions of the two tasks."""

import time

from pydantic_settings import BaseSettings

from apps.worker.functions import work

from .contract import NAP, REST, Nap, Rest, Slept


class Settings(BaseSettings):
    """NAP_S: duration of both tasks in seconds."""

    nap_s: float = 1


@work(NAP, settings=Settings)
def nap(task: Nap, settings: Settings) -> Slept:
    time.sleep(settings.nap_s)
    return Slept(name=task.name)


@work(REST, settings=Settings)
def rest(task: Rest, settings: Settings) -> Slept:
    time.sleep(settings.nap_s)
    return Slept(name=task.name)
