"""An endpoint that measures FastAPI's own cost: it validates the body and the response, and does nothing else."""

from fastapi import FastAPI

from apps.api.openapi import Accepted
from bench.apps.model import Nothing

app = FastAPI()


@app.post("/tasks", status_code=202, response_model=Accepted)
async def post_task(task: Nothing) -> dict[str, str]:
    return {"task_id": task.name, "task_status": "PENDING"}
