"""FastAPI with taskiq on aio-pika, whose channels use confirms."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from taskiq_aio_pika import AioPikaBroker

from apps.api.openapi import Accepted
from bench.apps.model import Nothing

broker = AioPikaBroker(os.environ["CELERY_BROKER_URL"])


@broker.task  # type: ignore[untyped-decorator]  # taskiq is not installed for linting
async def noop(name: str) -> str:
    return name


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/tasks", status_code=202, response_model=Accepted)
async def post_task(task: Nothing) -> dict[str, str]:
    sent = await noop.kiq(task.name)
    return {"task_id": sent.task_id, "task_status": "PENDING"}
