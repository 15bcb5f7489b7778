"""Server-sent events: each state exactly once for early and late clients, with few Redis connections."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from apps.api.task_events import COMMENT_S
from apps.contract import states
from tests.harness.parallel_clients import wait_together
from tests.harness.system import DEADLINE_S, Api, System, until

STREAMS = 1000
# A stream without a notification reads the record at this interval; a faster event came by notification.
LOOK_S = COMMENT_S - 1


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    shared.worker()
    return shared.api()


def follow(api: Api, task_id: str, **headers: str) -> Iterator[tuple[str, Any]]:
    """Yield each event's name and data."""
    with api.client.stream("GET", f"/tasks/{task_id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        event: dict[str, str] = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                event[name] = value
            elif event:
                assert event["id"] == event["event"]
                yield event["event"], json.loads(event["data"])
                event = {}


def test_stream_sends_started_and_success_when_they_happen(api: Api, shared: System) -> None:
    task_id = api.accepted("held", "streamed")
    times_s: list[float] = []
    told: list[tuple[str, Any]] = []
    for event in follow(api, task_id):
        told.append(event)
        times_s.append(time.monotonic())
        shared.release("streamed")  # the task ends only after the client has received STARTED
    assert [state for state, _ in told] == ["STARTED", "SUCCESS"]
    assert told[-1][1] == api.status(task_id)
    assert times_s[1] - times_s[0] < LOOK_S


def test_open_stream_receives_started_by_notification(system: System) -> None:
    api = system.api()
    system.worker()
    api.accepted("held", "before")
    until(lambda: system.effects("before", "begun"))
    task_id = api.accepted("held", "begins")
    times_s: dict[str, float] = {}
    with ThreadPoolExecutor(1) as reader:

        def read() -> None:
            for state, _ in follow(api, task_id):
                times_s[state] = time.monotonic()

        opened_s = time.monotonic()
        reading = reader.submit(read)
        try:
            until(lambda: system.redis.pubsub_numsub(states.begun_channel(task_id))[0][1])
            system.release("before")
            until(lambda: "STARTED" in times_s)
            assert "SUCCESS" not in times_s
        finally:
            for name in ("before", "begins"):  # otherwise the stream and the test would never end
                system.release(name)
        reading.result(DEADLINE_S)
    assert list(times_s) == ["STARTED", "SUCCESS"]
    assert times_s["STARTED"] - opened_s < LOOK_S


def test_client_that_connects_after_the_end_receives_all_states(api: Api) -> None:
    for task, told in (("sleep", ["STARTED", "SUCCESS"]), ("fail", ["STARTED", "FAILURE"])):
        task_id = api.accepted(task, "late")
        api.ended(task_id)
        assert [state for state, _ in follow(api, task_id)] == told


def test_client_that_reconnects_receives_the_missing_states(api: Api) -> None:
    task_id = api.accepted("sleep", "back")
    api.ended(task_id)
    assert [state for state, _ in follow(api, task_id, **{"Last-Event-ID": "STARTED"})] == ["SUCCESS"]
    assert [state for state, _ in follow(api, task_id, **{"Last-Event-ID": "x"})] == ["STARTED", "SUCCESS"]
    response = api.client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": "SUCCESS"})
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.thorough
def test_stream_of_a_waiting_task_sends_comments(shared: System) -> None:
    api = shared.api()
    task_id = api.accepted("sleep", "queued", seconds=60)
    started_s = time.monotonic()
    with api.client.stream("GET", f"/tasks/{task_id}/events") as response:
        for line in response.iter_lines():
            if line == ": still here":
                break
    assert time.monotonic() - started_s > 14
    assert api.client.delete(f"/tasks/{task_id}").status_code in {200, 202}  # frees the shared worker


def test_events_of_an_unknown_task_are_not_found(api: Api) -> None:
    assert api.get("/tasks/x/events") == 404


def test_stream_ends_when_its_client_disconnects(shared: System, api: Api) -> None:
    other = shared.api()
    task_id = other.accepted("sleep", "left", seconds=60)
    with pytest.raises(httpx.ReadTimeout), other.client.stream(
        "GET", f"/tasks/{task_id}/events", timeout=0.5
    ) as response:  # fmt: skip
        response.read()
    until(lambda: other.metric("sluice_long_polls") == 0, LOOK_S)  # sooner than the next comment would fail
    other.client.delete(f"/tasks/{task_id}")
    assert api.get("/healthz") == 200


@pytest.mark.thorough
def test_stream_survives_a_redis_restart(system: System) -> None:
    api = system.api()
    task_id = api.accepted("sleep", "outlives")
    events = follow(api, task_id)
    waiting = api.client
    with waiting.stream("GET", f"/tasks/{task_id}/events") as response:
        system.servers.redis.stop()
        until(lambda: api.get("/healthz") == 503)
        system.servers.redis.start()
        until(lambda: api.get("/healthz") == 200)
        system.worker()
        text = response.read().decode()
    assert text.count("event: STARTED") == text.count("event: SUCCESS") == 1
    assert [state for state, _ in events] == ["STARTED", "SUCCESS"]


def test_1000_streams_use_one_redis_connection(system: System) -> None:
    api = system.api(STREAMS_PER_CLIENT_MAX=str(STREAMS))
    task_id = api.accepted("sleep", "crowd")
    api.status(task_id)
    texts = asyncio.run(wait_together(system, api, f"/tasks/{task_id}/events", STREAMS))
    assert [text.count("event: ") for text in texts] == [2] * STREAMS
    assert all("event: SUCCESS" in text for text in texts)
