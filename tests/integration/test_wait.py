"""Long polls: when they answer, their cost, and their behaviour when the API or the client ends."""

import asyncio
import json
import signal
import time

import httpx
import pytest

from tests.harness.parallel_clients import wait_together
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import PATIENT, System, until

WAITERS = 500


def test_long_poll_returns_when_the_task_ends(shared: System) -> None:
    api = shared.api()
    shared.worker()
    for seconds in (0, 2):
        started_s = time.monotonic()
        task_id = api.accepted("sleep", seconds=seconds)
        assert api.status(task_id, wait_s=20)["task_status"] == "SUCCESS"
        assert time.monotonic() - started_s < seconds + 15  # well before the end of its wait of 20 s


def test_very_short_long_poll_answers_immediately(shared: System) -> None:
    """Its wait ends before the first reply of Redis."""
    api = shared.api()
    task_id = api.accepted("sleep", seconds=60)
    for wait_s in [0.0001, 0.0005, 0.001, 0.003] * 5:
        started_s = time.monotonic()
        assert api.status(task_id, wait_s=wait_s)["task_status"] in {"PENDING", "STARTED"}
        assert time.monotonic() - started_s < 20
    assert api.metric("sluice_long_polls") == 0


def test_500_long_polls_use_one_redis_connection(system: System) -> None:
    api = system.api(WAIT_MAX_S="55")
    task_id = api.accepted("sleep", seconds=0)
    api.status(task_id)
    answers = asyncio.run(wait_together(system, api, f"/tasks/{task_id}?wait=55", WAITERS))
    assert [json.loads(answer)["task_status"] for answer in answers] == ["SUCCESS"] * WAITERS


def test_long_poll_ends_when_its_client_disconnects(shared: System) -> None:
    api = shared.api()
    task_id = api.accepted("sleep", seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        api.client.get(f"/tasks/{task_id}?wait=25", timeout=0.5)
    until(lambda: api.metric("sluice_long_polls") == 0, 20)  # before the end of its wait of 25 s


def test_sigterm_answers_long_polls_and_ends_the_api(system: System) -> None:
    api = system.api()
    task_id = api.accepted("sleep", seconds=60)

    async def wait_through_the_end() -> httpx.Response:
        async with httpx.AsyncClient(base_url=api.url, headers=api.client.headers, timeout=30) as client:
            waiting = asyncio.create_task(client.get(f"/tasks/{task_id}?wait=25"))
            await asyncio.to_thread(until, lambda: api.metric("sluice_long_polls") == 1)
            api.child.signal(signal.SIGTERM)
            return await waiting

    started_s = time.monotonic()
    response = asyncio.run(wait_through_the_end())
    assert (response.status_code, response.json()["task_status"]) == (200, "PENDING")
    until(lambda: not api.child.alive, 10)
    assert time.monotonic() - started_s < 20  # well before the end of its wait of 25 s


def test_sigterm_lets_open_posts_finish(system: System) -> None:
    api = system.api(**PATIENT)
    system.servers.rabbitmq.suspend()

    async def post_through_the_end() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, headers=api.client.headers, timeout=30) as client:
            body = {"task": "sleep", "name": "a"}
            posts = [asyncio.create_task(client.post("/tasks", json=body)) for _ in range(20)]
            await asyncio.to_thread(until, lambda: api.metric("sluice_publishes_in_flight") == len(posts))
            api.child.signal(signal.SIGTERM)
            system.servers.rabbitmq.resume()
            return list(await asyncio.gather(*posts))

    responses = asyncio.run(post_through_the_end())
    assert [response.status_code for response in responses] == [202] * 20
    until(lambda: system.depth_messages(WORK_QUEUE) == 20)
