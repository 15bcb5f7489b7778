"""The FastAPI app: `uvicorn --factory apps.api.app:create_app`. Its lifespan opens and closes connections."""

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from apps import logs, startup
from apps.api import docs, errors, metrics, openapi, probes, request_log, routes
from apps.api.fast_path import FastPath
from apps.api.methods import Methods
from apps.api.publisher import Publisher
from apps.api.request_log import RequestLog
from apps.api.services import Services, make_services
from apps.contract import states
from apps.contract.model_checks import require_pure
from apps.contract.queues import require_queues
from apps.contract.settings import ApiSettings, load
from apps.contract.tasks import Registry
from apps.tasks import TASKS

GC_THRESHOLDS = (10_000, 10, 100)


def create_app(settings: ApiSettings | None = None, registry: Registry = TASKS) -> FastAPI:
    """Create the app; `settings` are read from the environment by default.

    Raises SystemExit if the worker could read an input differently than the API, or if a task's queue is not declared.
    """
    settings = settings or load(ApiSettings)
    logs.configure(settings.log_level)
    require_pure(registry)
    require_queues(registry)
    services = make_services(settings, registry)
    app = Service(
        services,
        title="Sluice",
        summary="Post tasks, and read their states and results.",
        lifespan=_lifespan,
        # the names of functions in generated clients
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(routes.router)
    app.include_router(probes.router)
    app.include_router(docs.router)
    errors.install(app)
    openapi.install(app, services.inputs)
    app.add_middleware(Methods, routes=app.routes)
    app.add_middleware(RequestLog)
    return app


class Service(FastAPI):
    """FastAPI, with a fast path in front of it for the two most frequent calls."""

    def __init__(self, services: Services, **options: Any) -> None:
        super().__init__(**options)
        self.state.services = services
        self._fast_path = FastPath(self._behind, services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._fast_path(scope, receive, send)

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, _sentence_only(send) if scope["type"] == "lifespan" else send)


def _sentence_only(send: Send) -> Send:
    """Let uvicorn log only the sentence of a refused start; Starlette would send the traceback."""
    kind = f"{startup.Refused.__module__}.{startup.Refused.__qualname__}: "

    async def send_sentence(message: Message) -> None:
        _, refused, sentence = message.get("message", "").rpartition(kind)
        if refused:
            message["message"] = sentence.strip()
        await send(message)

    return send_sentence


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Garbage collection took a tenth of the time, and there are hardly any cycles. Imported objects are excluded, and
    # the youngest generation is collected less often than after 700 new objects. The oldest generation, with the
    # objects of long-polls, is collected up to ten times less often: with thousands of them, a collection blocks for
    # tens of milliseconds.
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()
    services: Services = app.state.services
    publisher, store, waiter, quotas = services.publisher, services.store, services.waiter, services.quotas
    memory, large, parser, streams = services.redis_memory, services.large_results, services.parser, services.streams
    metrics.STREAMS.set_function(lambda: streams.open)
    metrics.IN_FLIGHT.set_function(lambda: publisher.in_flight)
    metrics.WAITING.set_function(lambda: waiter.waiting)
    metrics.BODIES_WAITING.set_function(lambda: parser.waiting)
    metrics.COMMANDS.set_function(lambda: store.unanswered)
    metrics.LARGE_WAITING.set_function(lambda: large.waiting)
    running = [asyncio.create_task(each.run()) for each in (publisher, waiter, quotas)]
    try:
        await _started(publisher, services.settings.celery_result_backend.get_secret_value())
        await memory.read()
        running.append(asyncio.create_task(memory.run()))
        await quotas.renew()  # a new replica must not use more than its share
        with _on_sigterm(waiter.drain):
            yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await quotas.renew()  # the last report
        await store.close()
        await large.close()
        parser.close()
        request_log.flush()


async def _started(publisher: Publisher, redis_url: str) -> None:
    """Wait until both servers have accepted the credentials or are unreachable. Raises startup.Refused."""
    key, channel = states.key("none"), states.channel("none")
    commands = (("GET", key), ("EVAL", "return 1", 1, key), ("INFO", "memory"), ("SUBSCRIBE", channel))
    await asyncio.gather(publisher.wait_started(startup.DEADLINE_S), startup.check_redis(redis_url, *commands))


class _on_sigterm:  # noqa: N801 - reads as a statement
    """Call a function at SIGTERM, before uvicorn's handler.

    uvicorn ends the lifespan only after the last response, and long-polls must be released before that.
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
