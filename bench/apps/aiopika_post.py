"""FastAPI with aio-pika: a robust connection, a channel with confirms, persistent and mandatory messages."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
from fastapi import FastAPI

from apps.api.openapi import Accepted
from bench.apps.model import Nothing

QUEUE = "bench.aiopika"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    connection = await aio_pika.connect_robust(os.environ["CELERY_BROKER_URL"])
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    app.state.exchange = channel.default_exchange
    yield
    await connection.close()


app = FastAPI(lifespan=lifespan)


@app.post("/tasks", status_code=202, response_model=Accepted)
async def post_task(task: Nothing) -> dict[str, str]:
    task_id = str(uuid4())
    message = aio_pika.Message(
        task.model_dump_json().encode(),
        message_id=task_id,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await app.state.exchange.publish(message, routing_key=QUEUE, mandatory=True)
    return {"task_id": task_id, "task_status": "PENDING"}
