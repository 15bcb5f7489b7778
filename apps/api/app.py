"""The FastAPI app: `uvicorn --factory apps.api.app:create_app`. Connections live as long as its lifespan."""

import asyncio
import logging
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps import logs
from apps.api import errors, openapi, ops, routes
from apps.api.auth import Clients
from apps.api.body import batch_model
from apps.api.idempotency import Keys
from apps.api.publisher import Publisher
from apps.api.store import Store
from apps.api.submission import Submitter
from apps.api.waiter import Waiter
from apps.contract.ids import TaskIds
from apps.contract.settings import ApiSettings, load
from apps.contract.tasks import TASKS, Registry, input_adapter

log = logging.getLogger(__name__)

REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app(settings: ApiSettings | None = None, registry: Registry = TASKS) -> FastAPI:
    """Build the service; without `settings` they come from the environment."""
    settings = settings or load(ApiSettings)
    logs.configure(settings.log_level)
    app = FastAPI(title="Sluice", summary="Post tasks, and ask what became of them.", lifespan=_lifespan)
    app.state.settings = settings
    app.state.registry = registry
    app.state.inputs = input_adapter(registry)
    app.state.batch = batch_model(registry)
    app.state.ids = TaskIds(settings.task_id_key.get_secret_value().encode())
    app.state.clients = Clients(settings.api_keys)
    app.include_router(routes.router)
    app.include_router(ops.router)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(RequestLog)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ApiSettings = app.state.settings
    publisher = app.state.publisher = Publisher(
        settings.celery_broker_url.get_secret_value(),
        deadline_s=settings.publish_deadline_s,
        in_flight_max=settings.publish_in_flight_max,
        heartbeat_s=settings.broker_heartbeat_s,
    )
    store = app.state.store = Store(settings.celery_result_backend.get_secret_value())
    waiter = app.state.waiter = Waiter(settings.celery_result_backend.get_secret_value())
    deadline_s = settings.publish_deadline_s
    keys = Keys(store, waiter, deadline_s=deadline_s, life_s=settings.key_ttl_s)
    app.state.submitter = Submitter(app.state.registry, app.state.ids, publisher, keys, deadline_s=deadline_s)
    ops.IN_FLIGHT.set_function(lambda: publisher.in_flight)
    ops.WAITING.set_function(lambda: waiter.waiting)
    running = [asyncio.create_task(publisher.run()), asyncio.create_task(waiter.run())]
    with _on_sigterm(waiter.drain):
        yield
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await store.close()


class _on_sigterm:  # noqa: N801 - reads as a statement
    """Call a function at SIGTERM, before the server's own handler.

    uvicorn ends the lifespan only after its last response: a long-poll must hear of the end before that.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._handle)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, number: int, frame: Any) -> None:
        self._loop.call_soon_threadsafe(self._function)
        if callable(self._previous):
            self._previous(number, frame)


class RequestLog:
    """Gives every request an id, the client's own where it sent a fitting one, and logs its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID_FORM.fullmatch(given) else uuid4().hex
        logs.request_id.set(request_id)
        logs.task_id.set(None)
        started_s = time.perf_counter()
        status = 0  # what is logged where the client had gone before an answer

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("unhandled")
            if status:  # its answer has begun: all that is left is to break it off
                raise
            await errors.response(errors.defect())(scope, receive, send_with_id)
        finally:
            if scope["path"] not in {"/livez", "/readyz", "/metrics"}:  # probes would be most of the log
                ms = round((time.perf_counter() - started_s) * 1000, 1)
                fields = {"method": scope["method"], "path": scope["path"], "status": status, "ms": ms}
                log.info("request", extra={"fields": fields})
