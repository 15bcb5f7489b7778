"""The API of the next version: `uvicorn --factory tests.harness.next_version_api:create_app`."""

from fastapi import FastAPI

from apps.api import app
from apps.contract import topology
from tests.harness.next_version import NEXT_TASKS, QUEUE


def create_app() -> FastAPI:
    topology.WORK_QUEUES = (*topology.WORK_QUEUES, QUEUE)
    return app.create_app(registry=NEXT_TASKS)
