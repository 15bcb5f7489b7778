"""Disables Celery's API for the code of tasks: each call raises an error that names the supported alternative.

Messages published by Celery itself have no owner, publish id or record: no client could read their result.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

from celery import Celery, Task

from apps.worker.dead_letter_publisher import Rejections
from apps.worker.limits import Limits

POST = "post the task to POST /tasks, for example with apps.client"
READ = "read the task with GET /tasks/{id}, for example with apps.client"
TRANSIENT = "list the error in `retry_on` beside the task's function, and raise it"
RAISE = "return the task's output, or raise an error"
CANCEL = "cancel the task with DELETE /tasks/{id}, for example with apps.client"


class CeleryCallRefused(RuntimeError):
    """Code in a worker called a disabled part of Celery's API."""


def refused(call: str, instead: str) -> Callable[..., NoReturn]:
    """A method that raises CeleryCallRefused for any arguments."""

    def method(*_: object, **__: object) -> NoReturn:
        raise CeleryCallRefused(f"Celery's {call} does not work in this worker: {instead}")

    return method


_publishing_refused = refused("group, chain or chord", POST)


class App(Celery):  # type: ignore[misc]  # celery ships no types
    """The worker's app. It publishes only retries of its own tasks."""

    send_task = refused("send_task", POST)
    send_own_task = Celery.send_task
    """Only for our retries."""
    connection_or_acquire = refused("app.control", CANCEL)
    redis_url: str

    @cached_property
    def limits(self) -> Limits:
        """The limits of this process of the pool."""
        return Limits()

    @cached_property
    def rejections(self) -> Rejections:
        """The rejections of the worker's main process."""
        return Rejections(self)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        if producer is None:
            _publishing_refused()
        return super().producer_or_acquire(producer)


class RefusingTask(Task):  # type: ignore[misc]
    """A task that cannot be called or published by code in the worker."""

    abstract = True
    apply_async = refused("apply_async", POST)
    delay = refused("delay", POST)
    apply = refused("apply", POST)
    replace = refused("replace", POST)
    add_to_chord = refused("add_to_chord", POST)
    retry = refused("retry", TRANSIENT)
    update_state = refused("update_state", RAISE)
    send_event = refused("send_event", RAISE)
