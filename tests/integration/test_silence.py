"""Redis or the broker is suspended: each wait ends at its deadline, and no command runs after its deadline."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import REGISTRY

from apps.api import large_results, store, waiter
from apps.api.errors import Problem
from apps.api.large_results import LargeResults
from apps.api.store import TIMEOUT_S, Store, Unavailable
from apps.api.task_events import follow
from apps.api.waiter import Waiter
from tests.harness import greedy_client
from tests.harness.servers import Servers
from tests.harness.system import Api, System, until

# Margin for a busy machine and the interval of the store's timeout check.
SLACK_S = 1.0
POSTS, POSTS_PER_S = 880, 220
BODY = b'{"task": "sleep", "name": "a"}'


@pytest.fixture
def silent(servers: Servers) -> Iterator[Servers]:
    """The servers; Redis is resumed at the end of the test."""
    yield servers
    servers.redis.resume()


def silenced(servers: Servers, ask: Callable[[Store], Awaitable[None]]) -> None:
    """Run a coroutine with a store whose connection exists when Redis is suspended."""

    async def run() -> None:
        asking = Store(servers.redis.url())
        assert await asking.ping()
        servers.redis.suspend()
        await ask(asking)
        servers.redis.resume()
        await asking.close()

    asyncio.run(run())


async def took_s(call: Awaitable[object]) -> float:
    started_s = time.monotonic()
    with pytest.raises(Unavailable):
        await call
    return time.monotonic() - started_s


def test_each_of_1000_commands_fails_at_its_own_deadline(silent: Servers) -> None:
    async def ask(asking: Store) -> None:
        waits = []
        for number in range(1000):  # five batches, over three deadlines
            waits.append(asyncio.create_task(took_s(asking.call("GET", str(number)))))
            await asyncio.sleep(3 * TIMEOUT_S / 1000)
        assert max(await asyncio.gather(*waits)) < TIMEOUT_S + SLACK_S
        assert asking.unanswered <= store.BATCH_COMMANDS

    silenced(silent, ask)


def test_command_not_sent_before_its_deadline_never_runs(silent: Servers) -> None:
    async def ask(asking: Store) -> None:
        first = asyncio.create_task(took_s(asking.call("SET", "silent:first", "sent")))
        await asyncio.sleep(0.1)  # the batch is sent
        late = [asyncio.create_task(took_s(asking.call("SET", "silent:late", "sent"))) for _ in range(3)]
        gone = asyncio.create_task(asking.call("SET", "silent:gone", "sent"))
        asking.later("SET", "silent:later", "sent")
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.gather(first, *late)
        silent.redis.resume()
        assert await asking.call("MGET", "silent:late", "silent:gone", "silent:later") == [None, None, None]

    silenced(silent, ask)


def test_cancelled_caller_does_not_shift_the_replies_of_others(silent: Servers) -> None:
    async def ask(asking: Store) -> None:
        tasks = [asyncio.create_task(asking.call("ECHO", str(number))) for number in range(3)]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        silent.redis.resume()
        with suppress(asyncio.CancelledError):
            await tasks[1]
        assert [await tasks[0], await tasks[2]] == ["0", "2"]

    silenced(silent, ask)


def test_number_of_waiting_commands_is_bounded(silent: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAITING_MAX", 50)

    async def ask(asking: Store) -> None:
        first = asyncio.create_task(took_s(asking.call("PING")))
        await asyncio.sleep(0.1)
        before = dropped("full")
        waits = await asyncio.gather(first, *(took_s(asking.call("PING")) for _ in range(60)))
        assert sum(wait < TIMEOUT_S / 2 for wait in waits) == 10  # refused immediately
        for _ in range(60):
            asking.later("PING")
        assert asking.unanswered <= 50 + store.BATCH_COMMANDS
        assert dropped("full") - before == 20

    silenced(silent, ask)


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("sluice_redis_commands_dropped_total", {"reason": reason}) or 0


def test_keyed_posts_are_answered_within_the_deadline_of_a_suspended_redis(
    system: System, record_property: Callable[[str, object], None]
) -> None:
    """With 220 posts per second, the wait once grew with every post, to 24.6 s after 8 s."""
    api = system.api()
    api.accepted("sleep", key="before")
    system.servers.redis.suspend()
    try:
        statuses = asyncio.run(_post_for(system, api, keyed=True))
    finally:
        system.servers.redis.resume()
    assert statuses == {503: POSTS}
    longest_s = _longest_s(system)
    record_property("longest post, Redis silent", f"{longest_s:.2f} s")
    assert longest_s < 3 * TIMEOUT_S
    until(lambda: api.get("/healthz") == 200)
    assert api.post("sleep", key="after").status_code == 202


def test_posts_are_answered_within_the_deadline_of_a_suspended_broker(
    system: System, record_property: Callable[[str, object], None]
) -> None:
    deadline_s = 2.0
    api = system.api(PUBLISH_DEADLINE_S=str(deadline_s), BROKER_HEARTBEAT_S="60")
    api.accepted("sleep")
    system.servers.rabbitmq.suspend()
    try:
        statuses = asyncio.run(_post_for(system, api, keyed=False))
    finally:
        system.servers.rabbitmq.resume()
    assert statuses == {503: POSTS}
    longest_s = _longest_s(system)
    record_property("longest post, broker silent", f"{longest_s:.2f} s")
    assert longest_s < 3 * deadline_s
    until(lambda: api.get("/healthz") == 200)
    assert api.post("sleep").status_code == 202


def _longest_s(system: System) -> float:
    """Return the longest duration in the API's log: a client with 440 connections adds delays of its own."""
    refused = system.requests("/tasks", POSTS, status=503)
    assert len(refused) == POSTS
    return float(max(line["ms"] for line in refused)) / 1000


async def _post_for(system: System, api: Api, *, keyed: bool) -> Counter[int]:
    """Post POSTS times, each on its own connection; returns the number of answers per status."""
    statuses: Counter[int] = Counter()
    at = httpx.URL(api.url)

    async def post(number: int) -> None:
        key = {"Idempotency-Key": f"silent-{number}"} if keyed else {}
        reader, writer = await asyncio.open_connection(at.host, at.port)
        request = greedy_client.request("/tasks", system.key, BODY, **key)
        statuses[await greedy_client.post(reader, writer, request)] += 1
        writer.close()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(POSTS):
            group.create_task(post(number))
            await asyncio.sleep(1 / POSTS_PER_S)
    return statuses


def test_number_and_time_of_waiting_reads_of_large_results_are_bounded(
    silent: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_results, "SLOT_DEADLINE_S", 1.0)
    monkeypatch.setattr(large_results, "READ_DEADLINE_S", 1.0)
    monkeypatch.setattr(large_results, "WAITING_MAX", 10)

    async def read(results: LargeResults) -> None:
        async with results.held("large", 20_000, 1):
            pass

    async def ask(_: Store) -> None:
        results = LargeResults(silent.redis.url())
        reads = [asyncio.create_task(took_s(read(results))) for _ in range(40)]
        await asyncio.sleep(0.1)
        assert results.waiting == 10
        waits = await asyncio.gather(*reads)
        assert sum(wait < 0.5 for wait in waits) == 40 - 10 - large_results.CONNECTIONS
        assert max(waits) < 2 + SLACK_S  # one deadline for the slot, and one for the read
        await results.close()

    silenced(silent, ask)


def test_subscriptions_to_a_suspended_redis_are_bounded(silent: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose outbox is full is replaced, and the next one subscribes to every topic."""
    monkeypatch.setattr(waiter, "OUTBOX_MAX", 100)
    monkeypatch.setattr(waiter, "RECONNECT_S", 0.01)

    async def watch(waiting: Waiter, task_id: str) -> None:
        with waiting.watch(task_id) as changed:
            while True:
                await changed.wait()
                changed.clear()

    async def run() -> None:
        waiting = Waiter(silent.redis.url())
        running = asyncio.create_task(waiting.run())
        is_connected = partial(getattr, waiting, "connected")
        await asyncio.to_thread(until, is_connected, 10)
        silent.redis.suspend()
        watching = [asyncio.create_task(watch(waiting, f"silent-{number}")) for number in range(150)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.connected
        silent.redis.resume()
        await asyncio.to_thread(until, is_connected, 10)
        with waiting.watch("silent-149") as changed:
            await asyncio.wait_for(changed.wait(), 10)
        for each in (*watching, running):
            each.cancel()
        await asyncio.gather(*watching, running, return_exceptions=True)

    asyncio.run(run())


def test_request_beyond_the_maximum_number_of_waiters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "WATCHES_MAX", 2)

    async def run() -> None:
        waiting = Waiter("redis://127.0.0.1:1/0")
        with waiting.watch("a"), waiting.watch("b"):
            with pytest.raises(Problem) as refused:
                await follow(SimpleNamespace(waiter=waiting), asyncio.Event().wait, "c", 1)  # type: ignore[arg-type]
            assert (refused.value.status, refused.value.kind) == (503, "too-many-waiting")
            assert refused.value.headers["Retry-After"]
        assert waiting.waiting == 0

    asyncio.run(run())
