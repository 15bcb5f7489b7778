"""FastAPI with Celery's `apply_async`, as in the original system; with and without confirms."""

from typing import Any

from celery import Celery
from celery.result import AsyncResult
from fastapi import FastAPI

from apps.api.openapi import Accepted, Task
from bench.apps.model import Nothing
from bench.apps.stock import TASK, celery


def confirm() -> FastAPI:
    return _create(celery(confirm_publish=True))


def noconfirm() -> FastAPI:
    return _create(celery(confirm_publish=False))


def _create(tasks: Celery) -> FastAPI:
    app = FastAPI()
    noop = tasks.tasks[TASK]

    @app.post("/tasks", status_code=202, response_model=Accepted)
    async def post_task(task: Nothing) -> dict[str, str]:
        return {"task_id": noop.apply_async((task.model_dump(),)).id, "task_status": "PENDING"}

    @app.get("/tasks/{task_id}", response_model=Task)
    async def get_task(task_id: str) -> dict[str, Any]:
        result = AsyncResult(task_id, app=tasks)
        return {"task_id": task_id, "task_status": result.state, "task_result": result.result}

    return app
