"""FastAPI's own cost: a validated body, a response model, and nothing done."""

from fastapi import FastAPI

from apps.api.openapi import Accepted
from bench.apps.model import Nothing

app = FastAPI()


@app.post("/tasks", status_code=202, response_model=Accepted)
async def post_task(task: Nothing) -> dict[str, str]:
    return {"task_id": task.name, "task_status": "PENDING"}
