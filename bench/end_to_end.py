"""Measures the time from a post to the result: long-polling our API, and polling Celery's state every 50 ms."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import httpx

from bench import figures
from bench.apps.model import BODY
from bench.server import Server, others, ours, purge
from bench.worker import bind, running
from tests.harness.system import System

RATE_PER_S = 100
SECONDS = 5
POLL_S = 0.05
Client = httpx.AsyncClient


def measure(system: System, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Returns (the figure, medians of both times in milliseconds)."""
    bind(system)
    found: dict[str, list[float]] = {"ours": [], "stock": []}
    (stock,) = [server for server in others(system) if server.name == "celery_noconfirm"]
    with ours(system) as mine, stock, running(system, "ours"), running(system, "stock"):
        for server, follow in ((mine, long_poll), (stock, poll)):
            asyncio.run(p50_ms(server, follow, 1))
        for _ in range(rounds):
            one = asyncio.run(p50_ms(mine, long_poll, SECONDS))
            two, three = (asyncio.run(p50_ms(stock, poll, SECONDS)) for _ in range(2))
            four = asyncio.run(p50_ms(mine, long_poll, SECONDS))
            found["ours"].append((one + four) / 2)
            found["stock"].append((two + three) / 2)
    system.redis.flushdb()
    purge(system)
    medians = {f"e2e_{name}_p50_ms": statistics.median(values) for name, values in found.items()}
    return {"e2e_p50_vs_celery_polling": figures.ratios(found["ours"], found["stock"])}, medians


async def p50_ms(server: Server, follow: Callable[[Client, str], Awaitable[None]], seconds: int) -> float:
    """The median time from post to result, in milliseconds.

    Open loop: tasks are posted at fixed times, whether or not earlier tasks have ended.
    """
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with Client(base_url=server.url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:

        async def one(at_s: float) -> float:
            await asyncio.sleep(at_s - time.perf_counter())
            response = await client.post("/tasks", content=BODY)
            assert response.status_code == httpx.codes.ACCEPTED, response.text
            await follow(client, response.json()["task_id"])
            return time.perf_counter() - at_s

        start_s = time.perf_counter() + 0.1
        starts = [start_s + number / RATE_PER_S for number in range(seconds * RATE_PER_S)]
        return statistics.median(await asyncio.gather(*map(one, starts))) * 1000


async def long_poll(client: Client, task_id: str) -> None:
    response = await client.get(f"/tasks/{task_id}", params={"wait": 25})
    assert response.json()["task_status"] == "SUCCESS", response.text


async def poll(client: Client, task_id: str) -> None:
    while True:
        if (await client.get(f"/tasks/{task_id}")).json()["task_status"] == "SUCCESS":
            return
        await asyncio.sleep(POLL_S)
