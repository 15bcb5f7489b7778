"""FastAPI's own cost: a validated body, a response model, and nothing done."""

from fastapi import FastAPI

from apps.api.openapi import Accepted
from apps.contract.tasks import Task1

app = FastAPI()


@app.post("/tasks", status_code=202, response_model=Accepted)
async def post_task(task: Task1) -> dict[str, str]:
    return {"task_id": task.name, "task_status": "PENDING"}
