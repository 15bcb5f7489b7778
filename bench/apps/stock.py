"""Celery 5.7 with its safest settings: `celery -A bench.apps.stock worker`."""

import os
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

QUEUE = "bench.stock"
TASK = "bench.noop"


def celery(*, confirm_publish: bool) -> Celery:
    app = Celery("stock", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
    queue = Queue(QUEUE, Exchange("sluice", type="topic"), QUEUE, queue_arguments={"x-queue-type": "quorum"})
    app.conf.update(
        task_queues=[queue],
        task_default_queue=QUEUE,
        task_default_exchange="sluice",
        task_default_exchange_type="topic",
        task_default_routing_key=QUEUE,
        broker_transport_options={"confirm_publish": confirm_publish},
        task_acks_late=True,
        task_track_started=True,
        worker_deduplicate_successful_tasks=True,
        worker_concurrency=2,
    )

    @app.task(name=TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def noop(payload: dict[str, Any]) -> dict[str, str]:
        return {"name_task": payload["name"], "state": "done"}

    return app


def __getattr__(name: str) -> Celery:
    if name in {"app", "celery_app"}:
        return celery(confirm_publish=True)
    raise AttributeError(name)
