"""The API with the tasks of the chaos runs: `uvicorn --factory tests.chaos.api:create_app`."""

from fastapi import FastAPI

from apps.api import app
from tests.chaos.tasks import TASKS
from tests.chaos.weakened import weaken_api


def create_app() -> FastAPI:
    weaken_api()
    return app.create_app(registry=TASKS)
