"""The API with shorter time limits for slow requests: `uvicorn --factory tests.harness.short_limits_api:create_app`."""

from fastapi import FastAPI

from apps.api import app, http
from tests.harness.simple_tasks import TASKS

HEAD_S, BODY_S, IDLE_S = 2.0, 4.0, 3.0


def create_app() -> FastAPI:
    http.HEAD_S, http.BODY_S = HEAD_S, BODY_S
    http.Protocol.timeout_keep_alive = property(lambda _: IDLE_S, lambda *_: None)  # type: ignore[assignment]
    return app.create_app(registry=TASKS)
