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
from apps.api import docs, errors, metrics, openapi, ops, request_log, routes
from apps.api.auth import ANYONE, Clients, read_keys
from apps.api.body import batch_model
from apps.api.front import Front
from apps.api.idempotency import Keys
from apps.api.large import LargeResults
from apps.api.methods import Methods
from apps.api.parser import Parser
from apps.api.publisher import Publisher
from apps.api.quotas import Quotas
from apps.api.redis_memory import RedisMemory
from apps.api.request_log import RequestLog
from apps.api.store import Store
from apps.api.streams import Streams
from apps.api.submission import Submitter
from apps.api.waiter import Waiter
from apps.contract import states
from apps.contract.ids import TaskIds
from apps.contract.purity import require_pure
from apps.contract.queues import require_queues
from apps.contract.quota import Quota
from apps.contract.settings import ApiSettings, load
from apps.contract.tasks import TASKS, Registry, input_adapter

GC_THRESHOLDS = (10_000, 10, 100)


def create_app(settings: ApiSettings | None = None, registry: Registry = TASKS) -> FastAPI:
    """Build the service; without `settings` they come from the environment.

    Raises SystemExit where an input cannot be carried to the worker, or a task has no queue.
    """
    settings = settings or load(ApiSettings)
    logs.configure(settings.log_level)
    require_pure(registry)
    require_queues(registry)
    app = Service(
        title="Sluice",
        summary="Post tasks, and ask what became of them.",
        lifespan=_lifespan,
        # what generated clients call their functions
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.inputs = input_adapter(registry)
    app.state.batch = batch_model(registry)
    app.state.ids = TaskIds(settings.task_id_key.get_secret_value().encode())
    app.state.api_keys = read_keys(settings)
    app.state.clients = Clients(app.state.api_keys)
    app.include_router(routes.router)
    app.include_router(ops.router)
    app.include_router(docs.router)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(Methods, routes=app.routes)
    app.add_middleware(RequestLog)
    return app


class Service(FastAPI):
    """FastAPI, and in front of it the two calls that are too frequent for its routing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._front = Front(self._behind, self.state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)

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
    settings: ApiSettings = app.state.settings
    publisher = app.state.publisher = Publisher(
        settings.celery_broker_url.get_secret_value(),
        deadline_s=settings.publish_deadline_s,
        in_flight_max=settings.publish_in_flight_max,
        heartbeat_s=settings.broker_heartbeat_s,
    )
    store = app.state.store = Store(settings.celery_result_backend.get_secret_value())
    large = app.state.large = LargeResults(settings.celery_result_backend.get_secret_value())
    waiter = app.state.waiter = Waiter(settings.celery_result_backend.get_secret_value())
    parser = app.state.parser = Parser(app.state.registry)
    deadline_s = settings.publish_deadline_s
    keys = Keys(store, waiter, app.state.ids, deadline_s=deadline_s, life_s=settings.key_ttl_s)
    memory = app.state.redis_memory = RedisMemory(store, settings.results_full_share)
    quotas = app.state.quotas = Quotas(
        store,
        app.state.api_keys,
        Quota(settings.quota_tasks_per_s, settings.quota_open_tasks),
        life_s=settings.record_ttl_s,
        anyone=ANYONE,
    )
    app.state.submitter = Submitter(
        app.state.registry, app.state.ids, publisher, keys, memory, quotas, deadline_s=deadline_s
    )
    streams = app.state.streams = Streams(
        per_client_max=settings.streams_per_client_max, total_max=settings.streams_max
    )
    ops.STREAMS.set_function(lambda: streams.open)
    ops.IN_FLIGHT.set_function(lambda: publisher.in_flight)
    ops.WAITING.set_function(lambda: waiter.waiting)
    metrics.BODIES_WAITING.set_function(lambda: parser.waiting)
    metrics.COMMANDS.set_function(lambda: store.unanswered)
    metrics.LARGE_WAITING.set_function(lambda: large.waiting)
    running = [asyncio.create_task(each.run()) for each in (publisher, waiter, quotas)]
    try:
        await _started(publisher, settings.celery_result_backend.get_secret_value())
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
