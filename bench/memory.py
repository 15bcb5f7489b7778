"""Measures the memory of an API process: idle, and with 7,000 clients that long-poll a task."""

import asyncio
import json
import resource
import urllib.request
from functools import partial

from bench import figures
from bench.apps.model import BODY
from bench.load import wrk
from bench.server import Server, ours, purge
from tests.harness.fake_broker import eventually
from tests.harness.system import System

LONG_POLLS = 7000
FILES = LONG_POLLS + 500
# The largest allowed wait, because the connections are opened one after the other.
WAIT_S = 55
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # without proxies, for loopback addresses


def measure(system: System, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Returns (both figures in MB, no other values). Each round starts a new process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, FILES), max(hard, FILES)))  # inherited by child processes
    idle, waiting = [], []
    for _ in range(rounds):
        with ours(system, WAIT_MAX_S=str(WAIT_S)) as server:
            wrk(server, 16, 1)
            idle.append(server.rss_mb)
            waiting.append(asyncio.run(with_long_polls(server)))
        purge(system)
    return {"rss_idle_mb": figures.summary(idle), "rss_7000_longpolls_mb": figures.summary(waiting)}, {}


async def with_long_polls(server: Server) -> float:
    """The memory of the server in MB while LONG_POLLS clients wait."""
    path = f"/tasks/{_post(server)}?wait={WAIT_S}"
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {server.key}", "", ""]
    request = "\r\n".join(lines).encode()
    writers = []
    try:
        for number in range(LONG_POLLS):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            writers.append(writer)
            if number % 100 == 0:
                await writer.drain()
        await eventually(partial(_all_wait, server), wanted=True)
        return server.rss_mb
    finally:
        for writer in writers:
            writer.transport.abort()


def _post(server: Server) -> str:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}
    request = urllib.request.Request(f"{server.url}/tasks", BODY.encode(), headers)  # noqa: S310 - our own server
    with DIRECT.open(request, timeout=30) as response:
        return str(json.load(response)["task_id"])


async def _all_wait(server: Server) -> bool:
    return await asyncio.to_thread(_waiting, server) == LONG_POLLS


def _waiting(server: Server) -> float:
    with DIRECT.open(f"{server.url}/metrics", timeout=30) as response:
        text = response.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("sluice_long_polls ")))
