"""Celery's own API as the code of a task meets it: each call fails at once and names the call that works instead.

A message that Celery itself would publish has no owner, no publish id and no record: no client could read its result.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

from celery import Celery, Task

from apps.worker.limits import Limits
from apps.worker.rejection import Rejections

POST = "post the task to POST /tasks, for example with apps.client"
READ = "read the task with GET /tasks/{id}, for example with apps.client"
TRANSIENT = "list the error in `retry_on` beside the task's function, and raise it"
RAISE = "return the task's output, or raise an error"
CANCEL = "cancel the task with DELETE /tasks/{id}, for example with apps.client"


class CeleryCallRefused(RuntimeError):
    """Code in a worker called a part of Celery that does not work here."""


def refused(call: str, instead: str) -> Callable[..., NoReturn]:
    """A method that raises CeleryCallRefused, whatever it is called with."""

    def method(*_: object, **__: object) -> NoReturn:
        raise CeleryCallRefused(f"Celery's {call} does not work in this worker: {instead}")

    return method


_publishing_refused = refused("group, chain or chord", POST)


class App(Celery):  # type: ignore[misc]  # celery ships no types
    """The worker's app, which publishes nothing but the retries of its own tasks."""

    send_task = refused("send_task", POST)
    send_own_task = Celery.send_task
    """For our retries alone."""
    connection_or_acquire = refused("app.control", CANCEL)
    redis_url: str

    @cached_property
    def limits(self) -> Limits:
        """Of each process of the pool."""
        return Limits()

    @cached_property
    def rejections(self) -> Rejections:
        """Of the worker's main process."""
        return Rejections(self)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        if producer is None:
            _publishing_refused()
        return super().producer_or_acquire(producer)


class RefusingTask(Task):  # type: ignore[misc]
    """A task that only a message from the broker can start."""

    abstract = True
    apply_async = refused("apply_async", POST)
    delay = refused("delay", POST)
    apply = refused("apply", POST)
    replace = refused("replace", POST)
    add_to_chord = refused("add_to_chord", POST)
    retry = refused("retry", TRANSIENT)
    update_state = refused("update_state", RAISE)
    send_event = refused("send_event", RAISE)
