"""Routes for operators: liveness, readiness, health, metrics."""

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from apps.api import errors
from apps.api.openapi import RESPONSES
from apps.availability import BROKER_UP, REDIS_UP

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="The process runs")
async def livez() -> dict[str, str]:
    """Independent of the broker and Redis: a restart would not repair them."""
    return {"status": "ok"}


@router.get("/readyz", summary="The process takes requests", responses=RESPONSES["readyz"])
async def readyz(request: Request) -> dict[str, str]:
    """503 after the process has received SIGTERM. A process listens only when it has started.

    Independent of the broker and Redis (see `/healthz`): during their outages, each replica answers 503 `refused`, a
    definite answer. Without a ready replica NGINX would answer 502, which does not show whether a task was accepted.
    """
    if request.app.state.services.waiter.draining:
        raise errors.not_ready(["draining"])
    return {"status": "ready"}


@router.get("/healthz", summary="The broker and Redis answer", responses=RESPONSES["healthz"])
async def healthz(request: Request) -> dict[str, str | float]:
    """503 if the broker or Redis does not answer, or if Redis is so full that posts are refused.

    `broker` and `redis` are `up` or `down`; `redis` may also be `full`. `redis_memory_share` is the used share of
    Redis' `maxmemory`, if it has one.
    """
    servers = await _servers(request)
    if set(servers.values()) & {"down", "full"}:
        raise errors.unhealthy(servers)
    return {"status": "ok", **servers}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """The metrics of this process."""
    await _servers(request)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _servers(request: Request) -> dict[str, str | float]:
    """Ping both servers, update the gauges, and return the states of the servers."""
    services = request.app.state.services
    broker, redis = await asyncio.gather(services.publisher.ping(), services.store.ping())
    BROKER_UP.set(broker)
    REDIS_UP.set(redis)
    memory = services.redis_memory
    full = "full" if memory.full else "up"
    servers: dict[str, str | float] = {"broker": "up" if broker else "down", "redis": full if redis else "down"}
    if memory.share is not None:
        servers["redis_memory_share"] = round(memory.share, 3)
    return servers
