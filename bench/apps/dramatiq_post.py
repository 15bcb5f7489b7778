"""FastAPI with dramatiq and confirms. dramatiq's broker client blocks, so the endpoint runs in FastAPI's threads."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from fastapi import FastAPI

from apps.api.openapi import Accepted
from bench.apps.model import Nothing

dramatiq.set_broker(RabbitmqBroker(url=os.environ["CELERY_BROKER_URL"], confirm_delivery=True))
app = FastAPI()


@dramatiq.actor(queue_name="bench.dramatiq")  # type: ignore[untyped-decorator]  # dramatiq is not installed for linting
def noop(name: str) -> str:
    return name


@app.post("/tasks", status_code=202, response_model=Accepted)
def post_task(task: Nothing) -> dict[str, str]:
    return {"task_id": noop.send(task.name).message_id, "task_status": "PENDING"}
