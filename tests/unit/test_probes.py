"""The probes: readiness depends on the process's own end, and not on the broker or Redis."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from apps.api.app import create_app
from apps.contract.settings import ApiSettings, load
from tests.unit.test_settings import GOOD

pytestmark = pytest.mark.anyio


class Server:
    """A broker or Redis that answers or does not answer."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers

    async def ping(self) -> bool:
        return self._answers


async def ask(
    path: str, *, draining: bool = False, broker: bool = True, redis: bool = True, share: float | None = None
) -> httpx.Response:
    app = create_app(load(ApiSettings, GOOD))
    parts: dict[str, Any] = {
        "waiter": SimpleNamespace(draining=draining),
        "redis_memory": SimpleNamespace(share=share, full=share is not None and share >= 0.9),
        "publisher": Server(answers=broker),
        "store": Server(answers=redis),
    }
    app.state.services = replace(app.state.services, **parts)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        return await client.get(path)


@pytest.mark.parametrize("away", [{}, {"broker": False}, {"redis": False}, {"broker": False, "redis": False}])
async def test_readiness_does_not_depend_on_broker_or_redis(away: dict[str, bool]) -> None:
    answer = await ask("/readyz", **away)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_draining_process_is_not_ready() -> None:
    answer = await ask("/readyz", draining=True)
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["draining"])


@pytest.mark.parametrize(
    ("away", "detail"),
    [
        ({"broker": False}, "does not answer: broker"),
        ({"redis": False}, "does not answer: redis"),
        ({"broker": False, "redis": False}, "does not answer: broker, redis"),
    ],
)
async def test_health_names_the_servers_that_do_not_answer(away: dict[str, bool], detail: str) -> None:
    answer = await ask("/healthz", **away)
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["type"], body["detail"]) == (503, "urn:sluice:problem:unhealthy", detail)
    assert [name for name in ("broker", "redis") if body[name] == "down"] == list(away)
    assert answer.headers["Retry-After"]


async def test_health_is_ok_if_both_servers_answer() -> None:
    answer = await ask("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "broker": "up", "redis": "up"})


@pytest.mark.parametrize(("share", "status", "redis"), [(0.1234, 200, "up"), (0.95, 503, "full")])
async def test_health_shows_the_memory_share_of_redis(share: float, status: int, redis: str) -> None:
    answer = await ask("/healthz", share=share)
    body = answer.json()
    assert (answer.status_code, body["redis"], body["redis_memory_share"]) == (status, redis, round(share, 3))
