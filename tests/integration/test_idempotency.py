"""Idempotency-Key: one id and one execution, even if processes die, hang or refuse requests."""

import asyncio
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import PATIENT, Api, System, until

# The API considers a request without an outcome dead after its timeouts for Redis and the broker.
ABANDONED_S = 4.0
PUBLISH_DEADLINE_S = "2"


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


def accepted(response: httpx.Response) -> str:
    assert response.status_code == 202, response.text
    return str(response.json()["task_id"])


def insist(api: Api, name: str, key: str, task: str = "sleep") -> tuple[str, list[int]]:
    """Post as docs/api.md says until the task is accepted; returns the id and every status."""
    statuses: list[int] = []

    def once() -> str:
        response = api.post(task, name, key=key)
        statuses.append(response.status_code)
        if response.status_code == 202:
            return str(response.json()["task_id"])
        assert response.status_code in {409, 503}, response.text
        assert int(response.headers["Retry-After"]) > 0
        return ""

    return until(once, what="an answer of 202"), statuses


def test_same_key_and_body_gives_one_task(api: Api, shared: System) -> None:
    key = secrets.token_hex(8)
    ids = {accepted(one.post("sleep", "once", key=key)) for one in (api, api, shared.api())}
    assert len(ids) == 1
    shared.worker()
    assert api.ended(ids.pop())["task_status"] == "SUCCESS"
    until(lambda: shared.depth_messages(WORK_QUEUE) == 0)
    assert shared.effects("once", "begun") == 1
    assert api.metric("sluice_repeated_total") >= 1


def test_20_concurrent_posts_to_two_processes_are_published_once(system: System) -> None:
    apis = [system.api(), system.api()]
    key = secrets.token_hex(8)
    with ThreadPoolExecutor(20) as threads:
        posts = [threads.submit(apis[n % 2].post, "sleep", "one of 20", key=key) for n in range(20)]
        ids = {accepted(post.result()) for post in posts}
    assert len(ids) == 1
    assert sum(api.metric("sluice_accepted_total") for api in apis) == 1
    until(lambda: system.depth_messages(WORK_QUEUE) == 1)
    system.worker()
    assert apis[0].ended(ids.pop())["task_status"] == "SUCCESS"
    assert system.effects("one of 20", "begun") == 1


@pytest.mark.thorough
@pytest.mark.parametrize(("die", "messages"), [("before 1", 1), ("after 1", 2)])
def test_task_runs_once_if_the_process_is_killed_before_or_after_its_publish(
    system: System, die: str, messages: int
) -> None:
    api, doomed = (
        system.api(PUBLISH_DEADLINE_S=PUBLISH_DEADLINE_S),
        system.api(TEST_DIE=die, PUBLISH_DEADLINE_S=PUBLISH_DEADLINE_S),
    )
    key = secrets.token_hex(8)
    started_s = time.monotonic()
    with pytest.raises(httpx.TransportError):
        doomed.post("sleep", "survives", key=key)
    task_id, statuses = insist(api, "survives", key)
    assert 409 in statuses
    assert time.monotonic() - started_s < ABANDONED_S + 20
    until(lambda: system.depth_messages(WORK_QUEUE) == messages)
    system.worker()
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert (system.effects("survives", "begun"), system.effects("survives", "done")) == (1, 1)
    assert accepted(api.post("sleep", "survives", key=key)) == task_id


@pytest.mark.thorough
def test_second_publish_is_skipped_while_the_first_runs_and_after_its_worker_died(system: System) -> None:
    api, doomed = system.api(), system.api(TEST_DIE="after 1")
    key = secrets.token_hex(8)
    with pytest.raises(httpx.TransportError):
        doomed.post("held", "twice", key=key)
    first = system.worker()
    until(lambda: system.effects("twice", "begun") == 1)
    task_id, _ = insist(api, "twice", key, task="held")
    system.worker()  # receives the second message, as the first worker holds the first one
    until(lambda: any(line.get("reason") == "claimed" for line in system.log_lines()))
    first.kill()
    system.release("twice")
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert system.effects("twice", "done") == 1
    assert system.effects("twice", "begun") == 2


def test_key_with_another_body_is_refused(api: Api) -> None:
    key = secrets.token_hex(8)
    accepted(api.post("sleep", "a", key=key))
    for response in (api.post("sleep", "b", key=key), api.batch([{"task": "sleep", "name": "a"}], key)):
        assert (response.status_code, response.json()["type"]) == (422, "urn:sluice:problem:key-reused")


@pytest.mark.parametrize("key", [b"", b"a b", b"\xc3\xa9", b"a" * 256])
def test_malformed_key_gets_400(api: Api, key: bytes) -> None:
    headers = httpx.Headers([(b"Idempotency-Key", key)])
    response = api.client.post("/tasks", json={"task": "sleep", "name": "a"}, headers=headers)
    assert (response.status_code, response.json()["type"]) == (400, "urn:sluice:problem:malformed")


def test_clients_with_the_same_key_get_different_tasks(shared: System, api: Api) -> None:
    theirs, key = secrets.token_urlsafe(24), secrets.token_hex(8)
    other = shared.api(API_KEYS=f"tests:{shared.key},others:{theirs}")
    body = {"task": "sleep", "name": "a"}

    def post(bearer: str) -> str:
        headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": key}
        return accepted(other.client.post("/tasks", json=body, headers=headers))

    our_id, their_id = post(shared.key), post(theirs)
    assert our_id != their_id
    assert post(shared.key) == our_id
    assert api.get(f"/tasks/{our_id}") == 200
    assert api.get(f"/tasks/{their_id}") == 404


def test_second_request_gets_a_conflict_after_its_deadline_while_the_first_is_open(system: System) -> None:
    slow, other = system.api(**PATIENT), system.api(PUBLISH_DEADLINE_S="1")
    key = secrets.token_hex(8)
    system.servers.rabbitmq.suspend()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(slow.post, "sleep", "open", key=key)
        until(lambda: slow.metric("sluice_publishes_in_flight") == 1)
        started_s = time.monotonic()
        second = other.post("sleep", "open", key=key)
        assert 1 <= time.monotonic() - started_s < 15  # its own deadline, not that of the first request
        assert (second.status_code, second.json()["type"]) == (409, "urn:sluice:problem:request-open")
        assert int(second.headers["Retry-After"]) > 0
        # a waiting request is answered as soon as the first one has its outcome
        waiting = threads.submit(other.post, "sleep", "open", key=key)
        system.servers.rabbitmq.resume()
        task_id = accepted(first.result())
    assert accepted(waiting.result()) == task_id


def test_repeated_post_settles_an_unknown_outcome(system: System) -> None:
    api = system.api(PUBLISH_DEADLINE_S=PUBLISH_DEADLINE_S)
    key = secrets.token_hex(8)
    system.servers.rabbitmq.suspend()
    response = api.post("sleep", "unknown", key=key)
    assert (response.status_code, response.json()["type"]) == (503, "urn:sluice:problem:outcome-unknown")
    system.servers.rabbitmq.resume()
    task_id, _ = insist(api, "unknown", key)
    system.worker()
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert system.effects("unknown", "begun") == 1


@pytest.mark.thorough
def test_refused_post_is_accepted_later_with_the_same_key(system: System) -> None:
    api = system.api()
    system.servers.rabbitmq.stop()
    until(lambda: api.get("/healthz") == 503)
    response = api.post("sleep", "refused", key="k")
    assert (response.status_code, response.json()["type"]) == (503, "urn:sluice:problem:refused")
    system.servers.rabbitmq.start()
    task_id, statuses = insist(api, "refused", "k")
    assert 409 not in statuses  # a refusal settles the key, so that no request waits
    assert accepted(api.post("sleep", "refused", key="k")) == task_id
    until(lambda: system.depth_messages(WORK_QUEUE) == 1)


@pytest.mark.thorough
def test_without_redis_only_requests_that_need_it_are_refused(system: System) -> None:
    api = system.api()
    task_id = api.accepted("sleep")
    system.servers.redis.suspend()
    for method, path in (("GET", ""), ("GET", "?wait=1"), ("GET", "/events"), ("DELETE", "")):
        response = api.client.request(method, f"/tasks/{task_id}{path}")
        assert (response.status_code, response.json()["type"]) == (503, "urn:sluice:problem:results-unavailable")
        assert int(response.headers["Retry-After"]) > 0
    for response in (api.post("sleep", key="k"), api.batch([{"task": "sleep", "name": "a"}], "b")):
        assert (response.status_code, response.json()["reason"]) == (503, "redis-away")
    api.accepted("sleep")
    assert api.batch([{"task": "sleep", "name": "a"}]).status_code == 202
    system.servers.redis.resume()
    insist(api, "abc", "k")
    until(lambda: system.depth_messages(WORK_QUEUE) == 4)


def test_waiting_requests_are_notified_and_do_not_poll(system: System) -> None:
    """20 requests share a key, and one publishes to a hanging broker. The others do not call Redis while they wait."""
    api = system.api(**PATIENT)
    system.servers.rabbitmq.suspend()

    async def post_together() -> list[httpx.Response]:
        headers = {**api.client.headers, "Idempotency-Key": "together"}
        async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
            body = {"task": "sleep", "name": "together"}
            posts = [asyncio.create_task(client.post("/tasks", json=body)) for _ in range(20)]
            await asyncio.to_thread(until, lambda: api.metric("sluice_long_polls") == 19)
            before = _evaluations(system)
            await asyncio.sleep(1)  # the number of calls during this time is what the test measures
            assert _evaluations(system) < before + 19  # a few calls renew quotas
            system.servers.rabbitmq.resume()
            return list(await asyncio.gather(*posts))

    assert len({accepted(response) for response in asyncio.run(post_together())}) == 1


def _evaluations(system: System) -> int:
    stats: Any = system.redis.info("commandstats")
    return int(stats["cmdstat_eval"]["calls"])


def test_sigterm_leaves_no_key_claimed(system: System) -> None:
    api, other = system.api(**PATIENT), system.api()
    system.servers.rabbitmq.suspend()
    with ThreadPoolExecutor(1) as threads:
        post = threads.submit(api.post, "sleep", "leaving", key="k")
        until(lambda: api.metric("sluice_publishes_in_flight") == 1)
        api.child.signal(signal.SIGTERM)
        system.servers.rabbitmq.resume()
        task_id = accepted(post.result())
    assert accepted(other.post("sleep", "leaving", key="k")) == task_id
