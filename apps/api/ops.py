"""What operators look at: liveness, readiness, metrics."""

import asyncio
from functools import cache

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from apps.api import errors
from apps.api.openapi import RESPONSES

router = APIRouter(tags=["operations"])

ACCEPTED = Counter("sluice_accepted", "Tasks answered with 202", ["task"])
REFUSED = Counter("sluice_refused", "Tasks that were refused, or whose outcome is unknown, by reason", ["reason"])
REPEATED = Counter("sluice_repeated", "Posts answered from an earlier one with the same Idempotency-Key")
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


@router.get(
    "/readyz",
    summary="The broker and Redis answer, and the process is not about to end",
    responses=RESPONSES["readyz"],
)
async def readyz(request: Request) -> dict[str, str]:
    """503 says which of them does not."""
    state = request.app.state
    broker, redis = await asyncio.gather(state.publisher.ping(), state.store.ping())
    wanted = {"broker": broker, "redis": redis, "draining": not state.waiter.draining}
    away = [name for name, fine in wanted.items() if not fine]
    if away:
        raise errors.not_ready(away)
    return {"status": "ready"}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics() -> Response:
    """Of this process."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
