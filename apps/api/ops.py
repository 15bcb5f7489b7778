"""What operators look at: liveness, readiness, health, metrics."""

import asyncio
from functools import cache

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from apps.api import errors
from apps.api.openapi import RESPONSES
from apps.metrics import BROKER_UP, REDIS_UP

router = APIRouter(tags=["operations"])

ACCEPTED = Counter("sluice_accepted", "Tasks answered with 202", ["task"])
REFUSED = Counter("sluice_refused", "Tasks that were refused, or whose outcome is unknown, by reason", ["reason"])
REPEATED = Counter("sluice_repeated", "Posts answered from an earlier one with the same Idempotency-Key")
# Clients are those of API_KEYS, so that the labels are bounded.
QUOTA_REFUSED = Counter("sluice_quota_refused", "Posts refused by the client's quota", ["client", "quota"])
QUOTA_OPEN = Gauge("sluice_quota_open", "Tasks of the client that wait or run, as of the last renewal", ["client"])
STREAMS = Gauge("sluice_event_streams", "Event streams that are open")
STREAMS_REFUSED = Counter("sluice_event_streams_refused", "Event streams that were refused, by the limit", ["limit"])
SLOW_REQUESTS = Counter("sluice_slow_requests", "Requests that did not arrive in time, by the part", ["part"])
CANCELLED = Counter("sluice_cancelled", "Tasks cancelled by a client, by the state they were in", ["state"])
PUBLISH_SECONDS = Histogram(
    "sluice_publish_seconds",
    "From the start of a publish to its outcome",
    ["outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
IN_FLIGHT = Gauge("sluice_publishes_in_flight", "Publishes that wait for their outcome")
WAITING = Gauge("sluice_long_polls", "Clients that wait for a task")
# Found once for each task and outcome: looking one up costs as much as counting.
accepted = cache(ACCEPTED.labels)
publish_seconds = cache(PUBLISH_SECONDS.labels)


@router.get("/livez", summary="The process runs")
async def livez() -> dict[str, str]:
    """Depends on nothing else: a restart would not mend the broker."""
    return {"status": "ok"}


@router.get("/readyz", summary="The process takes requests", responses=RESPONSES["readyz"])
async def readyz(request: Request) -> dict[str, str]:
    """503 from the process's SIGTERM on. It listens once it has started: see `/healthz` for the broker and Redis.

    Depends on neither: while one is away each replica answers 503 `refused`, which a client can rely on. Without a
    ready replica NGINX would answer 502, after which nobody knows whether a task was accepted.
    """
    if request.app.state.waiter.draining:
        raise errors.not_ready(["draining"])
    return {"status": "ready"}


@router.get("/healthz", summary="The broker and Redis answer", responses=RESPONSES["healthz"])
async def healthz(request: Request) -> dict[str, str | float]:
    """503 where one of them does not, or where Redis is so full that posts are refused.

    Both are named, each as `up` or `down`, Redis also as `full`. `redis_memory_share` is the used share of Redis'
    `maxmemory`, if it has one.
    """
    servers = await _servers(request)
    if set(servers.values()) & {"down", "full"}:
        raise errors.unhealthy(servers)
    return {"status": "ok", **servers}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Of this process."""
    await _servers(request)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _servers(request: Request) -> dict[str, str | float]:
    """Ask both servers, note in the gauges whether they answer, and answer the same."""
    state = request.app.state
    broker, redis = await asyncio.gather(state.publisher.ping(), state.store.ping())
    BROKER_UP.set(broker)
    REDIS_UP.set(redis)
    memory = state.redis_memory
    full = "full" if memory.full else "up"
    servers: dict[str, str | float] = {"broker": "up" if broker else "down", "redis": full if redis else "down"}
    if memory.share is not None:
        servers["redis_memory_share"] = round(memory.share, 3)
    return servers
