"""While one client floods the API with batches, no post of another client is refused or noticeably slower."""

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.harness.greedy_client import TASKS, post, request
from tests.harness.system import ROOT, System

CONNECTIONS = 64
CLIENTS = 9
PER_S = 10
SECONDS = 5.0
# The quota of the greedy client, and the interval at which its batches stay within this quota.
QUOTA_PER_S = 200
INSIDE_PAUSE_S = 1.25 * TASKS / QUOTA_PER_S
SLOWER_MAX = 3.0
# Minimum and maximum number of pairs of runs; a busy machine that disturbs some runs needs more pairs.
PAIRS = (2, 6)


@contextmanager
def greedy(url: str, key: str, pause_s: float, told: dict[str, int]) -> Iterator[None]:
    """Run the greedy client; after the block, `told` contains the number of answers per status."""
    arguments = [sys.executable, "-m", "tests.harness.greedy_client", url, key, str(CONNECTIONS), str(pause_s)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    for status, count in json.loads(output).items():
        told[status] = told.get(status, 0) + count


async def posts_of_one(url: str, key: str, first_s: float) -> list[tuple[int, float]]:
    """Post ten times a second; returns the status and the duration (s) of each answer."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    body = b'{"task": "sleep", "name": "abc"}'
    answers = []
    now_s = asyncio.get_running_loop().time
    begun_s = now_s() + first_s
    for number in range(int(SECONDS * PER_S)):
        await asyncio.sleep(begun_s + number / PER_S - now_s())
        sent_s = now_s()
        answers.append((await post(reader, writer, request("/tasks", key, body)), now_s() - sent_s))
    writer.close()
    return answers


async def posts_of_all(url: str, keys: list[str]) -> list[tuple[int, float]]:
    each = (posts_of_one(url, key, number / PER_S / len(keys)) for number, key in enumerate(keys))
    return [answer for one in await asyncio.gather(*each) for answer in one]


def p95_s(answers: list[tuple[int, float]]) -> float:
    """Assert that every post was accepted, and return the 95th percentile of the durations."""
    assert {status for status, _ in answers} == {202}
    return statistics.quantiles((took_s for _, took_s in answers), n=20)[-1]


@pytest.mark.alone
@pytest.mark.thorough
def test_client_beyond_its_quota_does_not_slow_down_other_clients(system: System) -> None:
    """Nine clients post 10 tasks a second each while a tenth floods; the control runs keep it within its quota."""
    names = ["greedy", *(f"client-{number}" for number in range(CLIENTS))]
    keys = {name: f"key-of-the-client-{name}" for name in names}
    for name in names:
        system.redis.delete(f"sluice:quota:{name}")
    given = ",".join(f"{name}:{key}" for name, key in keys.items())
    api = system.api(API_KEYS=given, QUOTA_TASKS_PER_S=str(QUOTA_PER_S), QUOTA_OPEN_TASKS="20000")
    told: dict[str, int] = {}
    others = [keys[name] for name in names[1:]]

    def run(pause_s: float, told: dict[str, int]) -> float:
        with greedy(api.url, keys["greedy"], pause_s, told):
            return p95_s(asyncio.run(posts_of_all(api.url, others)))

    run(0, {})  # uses up the saved quota
    started_s = time.monotonic()
    inside: list[float] = []
    beyond: list[float] = []
    for pair in range(PAIRS[1]):
        for pause_s, found in ((INSIDE_PAUSE_S, inside), (0, beyond))[:: -1 if pair % 2 else 1]:
            found.append(run(pause_s, told if not pause_s else {}))
        if pair + 1 >= PAIRS[0] and statistics.median(beyond) <= SLOWER_MAX * statistics.median(inside):
            break
    assert statistics.median(beyond) <= SLOWER_MAX * statistics.median(inside), (inside, beyond, told)
    assert told.get("429", 0) > CONNECTIONS
    assert told.get("202", 0) * TASKS <= QUOTA_PER_S * (time.monotonic() - started_s + 10)
