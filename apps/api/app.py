"""The FastAPI app: `uvicorn --factory apps.api.app:create_app`. Connections live as long as its lifespan."""

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
from apps.contract.purity import require_pure
from apps.contract.queues import require_queues
from apps.contract.settings import ApiSettings, load
from apps.contract.tasks import Registry
from apps.tasks import TASKS

GC_THRESHOLDS = (10_000, 10, 100)


def create_app(settings: ApiSettings | None = None, registry: Registry = TASKS) -> FastAPI:
    """Build the service; without `settings` they come from the environment.

    Raises SystemExit where an input cannot be carried to the worker, or a task has no queue.
    """
    settings = settings or load(ApiSettings)
    logs.configure(settings.log_level)
    require_pure(registry)
    require_queues(registry)
    services = make_services(settings, registry)
    app = Service(
        services,
        title="Sluice",
        summary="Post tasks, and ask what became of them.",
        lifespan=_lifespan,
        # what generated clients call their functions
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
    """FastAPI, and in front of it the two calls that are too frequent for its routing."""

    def __init__(self, services: Services, **options: Any) -> None:
        super().__init__(**options)
        self.state.services = services
        self._fast_path = FastPath(self._behind, services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._fast_path(scope, receive, send)

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, _sentence_only(send) if scope["type"] == "lifespan" else send)


def _sentence_only(send: Send) -> Send:
    """Of a start that was refused uvicorn logs the sentence; Starlette would have it log the traceback."""
    kind = f"{startup.Refused.__module__}.{startup.Refused.__qualname__}: "

    async def send_sentence(message: Message) -> None:
        _, refused, sentence = message.get("message", "").rpartition(kind)
        if refused:
            message["message"] = sentence.strip()
        await send(message)

    return send_sentence


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Looking for cycles took a tenth of the time, and there are hardly any: what was imported stays, and what requests
    # in flight hold is looked through less often than after each 700 objects; what long-polls hold, which are old by
    # then, up to ten times less often still: with thousands of them each look is tens of milliseconds, for everybody.
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()
    services: Services = app.state.services
    publisher, store, waiter, quotas = services.publisher, services.store, services.waiter, services.quotas
    memory, large, parser, streams = services.redis_memory, services.large, services.parser, services.streams
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
        await quotas.renew()  # a replica that starts has no more than its share
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
    """Wait until both servers have accepted the credentials, or could not be reached. Raises startup.Refused."""
    key, channel = states.key("none"), states.channel("none")
    commands = (("GET", key), ("EVAL", "return 1", 1, key), ("INFO", "memory"), ("SUBSCRIBE", channel))
    await asyncio.gather(publisher.wait_started(startup.DEADLINE_S), startup.check_redis(redis_url, *commands))


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
