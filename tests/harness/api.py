"""The API with the test tasks: `uvicorn --factory tests.harness.api:create_app`. TEST_DIE kills it at a publish."""

import os
import signal

from fastapi import FastAPI

from apps.api import app, services
from apps.api.publisher import Outcome, Publisher
from apps.contract.message import TaskMessage
from tests.harness.tasks import TEST_TASKS

# "before 3": killed instead of the third publish. "after 3": killed after the broker's confirm, before any answer.
DIE = "TEST_DIE"


class DyingPublisher(Publisher):
    _published = 0

    async def publish(self, message: TaskMessage) -> Outcome:
        self._published = number = self._published + 1
        self._die(f"before {number}")
        outcome = await super().publish(message)
        self._die(f"after {number}")
        return outcome

    def _die(self, here: str) -> None:
        if os.environ[DIE] == here:
            os.kill(os.getpid(), signal.SIGKILL)


def create_app() -> FastAPI:
    if DIE in os.environ:
        services.Publisher = DyingPublisher  # type: ignore[attr-defined]
    return app.create_app(registry=TEST_TASKS)
