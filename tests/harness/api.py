"""The API with the test tasks: `uvicorn --factory tests.harness.api:create_app`."""

from fastapi import FastAPI

from apps.api import app
from tests.harness.tasks import TEST_TASKS


def create_app() -> FastAPI:
    return app.create_app(registry=TEST_TASKS)
