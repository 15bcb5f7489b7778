"""Redis is down while tasks end: no result is lost, limits still hold, and no client hangs."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from redis import Redis

from apps.api.store import BATCH_COMMANDS, TIMEOUT_S, Store, Unavailable
from apps.api.task_events import follow
from apps.api.waiter import Waiter, set_within
from apps.contract import ids, states
from tests.harness.servers import Servers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS


@pytest.mark.outage
@POOLS
def test_task_that_ends_during_a_35_s_outage_of_redis_keeps_its_result(system: System, pool: str) -> None:
    api = system.api()
    system.worker(WORKER_POOL=pool)
    task_id = api.accepted("held", "kept")
    until(lambda: system.effects("kept", "begun") == 1)
    system.servers.redis.stop()
    system.release("kept")
    until(lambda: system.effects("kept", "done") == 1)
    _pass(35)
    assert system.depth_messages(WORK_QUEUE) == 1  # acked only after its end is stored
    system.servers.redis.start()
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert system.effects("kept", "begun") == 1


@pytest.mark.outage
def test_hard_limit_holds_during_a_30_s_outage_of_redis(system: System) -> None:
    api = system.api()
    worker = system.worker()
    recorder = system.recorder()
    task_id = api.accepted("stuck", "stuck")
    until(lambda: system.effects("stuck", "begun") == 1)
    system.servers.redis.stop()
    stopped_s = time.monotonic()
    # Redis stays down until both have happened, even if that takes longer than 30 s.
    until(lambda: "HardTimeLimitExceeded" in system.logs(), 25)
    until(lambda: system.depth_messages("dead") == 1, 25)
    _pass(30 - (time.monotonic() - stopped_s))
    system.servers.redis.start()
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(task_id)["task_status"] == "FAILURE"
    assert worker.alive
    assert recorder.alive
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages("dead.parked") == 1)


@pytest.mark.parametrize("away", ["stop", "suspend"])
def test_reads_get_503_soon_and_posts_are_accepted_without_redis(system: System, away: str) -> None:
    api = system.api()
    task_id = api.accepted("sleep")
    getattr(system.servers.redis, away)()
    started_s = time.monotonic()
    response = api.client.get(f"/tasks/{task_id}?wait=20")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:sluice:problem:results-unavailable"
    assert time.monotonic() - started_s < 10
    assert api.post("sleep").status_code == 202
    assert (api.get("/livez"), api.get("/healthz")) == (200, 503)


def test_suspended_redis_and_broker_do_not_block_the_event_loop(system: System) -> None:
    """The original called both from async functions with blocking clients."""
    api = system.api(PUBLISH_DEADLINE_S="2")
    task_id = api.accepted("sleep")
    # A blocked loop delays /livez in every round, a busy machine only in some.
    found = any(_worst_s(system, api, task_id) < 1 for _ in range(3))
    assert found, "/livez was delayed in each round: a GET or a post, which take 2 s, blocked the event loop"


def _worst_s(system: System, api: Api, task_id: str) -> float:
    """Return the longest duration of /livez while a GET and a post waited for Redis and the broker."""
    worst_s = 0.0
    system.servers.redis.suspend()
    system.servers.rabbitmq.suspend()
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(api.client.get, f"/tasks/{task_id}"), threads.submit(api.post, "sleep")]
        while not all(call.done() for call in slow):
            started_s = time.monotonic()
            assert api.get("/livez") == 200
            worst_s = max(worst_s, time.monotonic() - started_s)
    assert [call.result().status_code for call in slow] == [503, 503]
    system.servers.redis.resume()
    system.servers.rabbitmq.resume()
    until(lambda: api.post("sleep").status_code == 202)
    return worst_s


@pytest.mark.thorough
def test_tasks_that_begin_in_an_outage_longer_than_their_limit_succeed(system: System) -> None:
    """The limit counts only the time of the task's function, not the wait for Redis."""
    api = system.api()
    system.worker(WORKER_CONCURRENCY="2")
    system.recorder()
    system.servers.redis.stop()
    ids = [api.accepted("brief", "brief") for _ in range(3)]
    _pass(8)
    system.servers.redis.start()
    until(lambda: api.get("/healthz") == 200)
    assert [api.ended(task_id)["task_status"] for task_id in ids] == ["SUCCESS"] * 3
    assert system.effects("brief", "done") == 3


def test_long_poll_gets_503_when_redis_stops_and_succeeds_after_its_restart(system: System) -> None:
    api = system.api()
    task_id = api.accepted("sleep", seconds=0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(api.client.get, f"/tasks/{task_id}?wait=25")
        until(lambda: api.metric("sluice_long_polls") == 1)
        system.servers.redis.stop()
        assert waiting.result(20).status_code == 503  # before its 25 s are over
    system.servers.redis.start()
    until(lambda: api.get("/healthz") == 200)
    system.worker()
    assert api.ended(task_id)["task_status"] == "SUCCESS"


@pytest.mark.thorough
def test_long_polls_survive_repeated_disconnects(system: System) -> None:
    api = system.api(WAIT_MAX_S="55")
    ids = [api.accepted("sleep", seconds=0) for _ in range(20)]
    api.client.timeout = httpx.Timeout(90)
    with ThreadPoolExecutor(len(ids)) as threads:
        waiting = [threads.submit(api.status, task_id, 55) for task_id in ids]
        for _ in range(20):
            until(lambda: system.redis.client_kill_filter(_type="pubsub"), 10)
        system.worker()
        assert [call.result()["task_status"] for call in waiting] == ["SUCCESS"] * len(ids)
    assert "unhandled" not in system.logs()


def test_waiter_survives_a_server_that_is_not_redis(servers: Servers) -> None:
    """A port-forward may temporarily point to another server: the waiter must then connect again to the real Redis."""
    asyncio.run(_listen_to_what_is_no_redis(servers))


async def _listen_to_what_is_no_redis(servers: Servers) -> None:
    answers = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$2\r\n\xff\xfe\r\n"]

    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answers:
            writer.write(answers.pop())
            writer.close()
            return
        there, away = await asyncio.open_connection("127.0.0.1", servers.redis.port)
        await asyncio.gather(_copy(reader, away), _copy(there, writer))
        over.set()

    stranger = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    waiter = Waiter(servers.redis.url().replace(f":{servers.redis.port}", f":{port}"))
    running = asyncio.create_task(waiter.run())
    await asyncio.to_thread(until, lambda: not answers or running.done())
    with waiter.watch("later") as changed:
        while await set_within(changed, 3):  # lost connections also set the event
            pass
        assert not running.done()
        with Redis.from_url(servers.redis.url()) as redis:
            await asyncio.to_thread(until, lambda: redis.pubsub_numsub(states.channel("later"))[0][1] == 1)
    running.cancel()
    await over.wait()
    stranger.close()


def test_unserializable_command_fails_and_the_next_succeeds(servers: Servers) -> None:
    async def ask() -> None:
        store = Store(servers.redis.url())
        with pytest.raises((TypeError, AttributeError)):
            await asyncio.wait_for(store.call(5), 5)
        assert await asyncio.wait_for(store.ping(), 5)
        await store.close()

    asyncio.run(ask())


def test_command_refused_by_redis_fails_alone(servers: Servers) -> None:
    """Both commands are in one batch; an unread reply would be taken for the reply of the next command."""

    async def ask() -> None:
        store = Store(servers.redis.url())
        answers = await asyncio.gather(*map(store.call, ("NONE", "PING")), return_exceptions=True)
        assert isinstance(answers[0], Unavailable)
        assert answers[1] == await store.call("ECHO", "PONG") == "PONG"
        await store.close()

    asyncio.run(ask())


def test_unawaited_command_is_sent_before_later_commands(servers: Servers) -> None:
    async def ask() -> None:
        store = Store(servers.redis.url())
        await store.call("DEL", "ridden")
        store.later("SET", "ridden", "along")
        assert await store.call("GET", "ridden") == "along"
        await store.close()

    asyncio.run(ask())


@pytest.mark.parametrize("closed", [True, False], ids=["close", "alone"])
def test_unawaited_command_is_sent(servers: Servers, closed: bool) -> None:
    async def ask() -> None:
        store = Store(servers.redis.url())
        with Redis.from_url(servers.redis.url(), decode_responses=True) as redis:
            redis.delete("later")
            store.later("SET", "later", "sent")
            if closed:  # as at the end of a process
                await store.close()
                assert redis.get("later") == "sent"
                return
            await asyncio.to_thread(until, lambda: redis.get("later") == "sent")
        await store.close()

    asyncio.run(ask())


def test_close_waits_for_a_silent_redis_at_most_as_long_as_for_one_batch(system: System) -> None:
    async def ask() -> float:
        store = Store(system.servers.redis.url())
        assert await store.ping()
        system.servers.redis.suspend()
        waiting = [asyncio.create_task(store.call("PING")) for _ in range(10 * BATCH_COMMANDS)]
        await asyncio.sleep(0)  # lets the tasks send their commands
        began_s = time.monotonic()
        await store.close()
        took_s = time.monotonic() - began_s
        for each in waiting:
            each.cancel()
        return took_s

    try:
        assert asyncio.run(ask()) < 5 * TIMEOUT_S  # ten batches one after the other would take longer
    finally:
        system.servers.redis.resume()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def test_subscription_wakes_its_waiter(servers: Servers) -> None:
    """Changes before the subscription are only in the record: the wake makes the waiter read it."""
    asyncio.run(_watch_twice(servers))


async def _watch_twice(servers: Servers) -> None:
    waiter = Waiter(servers.redis.url())
    running = asyncio.create_task(waiter.run())
    with waiter.watch("before the connection") as changed:
        assert await set_within(changed, 10)
    with waiter.watch("after it") as changed, waiter.watch("after it") as also:
        assert await set_within(changed, 5)
        assert await set_within(also, 5)
        with waiter.watch("after it") as later:  # the channel is already subscribed: read the record immediately
            assert await set_within(later, 0)
        assert not await set_within(changed, 0.2)
    running.cancel()


def test_abandoned_channel_is_unsubscribed_unless_a_waiter_returns(servers: Servers) -> None:
    asyncio.run(_leave_and_come_back(servers))


async def _leave_and_come_back(servers: Servers) -> None:
    waiter = Waiter(servers.redis.url())
    running = asyncio.create_task(waiter.run())
    with waiter.watch("left") as changed, waiter.watch("again") as also:
        assert await set_within(changed, 10)
        assert await set_within(also, 10)
    with waiter.watch("again"), Redis.from_url(servers.redis.url()) as redis:
        subscribers = {task_id: partial(redis.pubsub_numsub, states.channel(task_id)) for task_id in ("left", "again")}
        await asyncio.to_thread(until, lambda: subscribers["left"]()[0][1] == 0, 10)
        assert subscribers["again"]()[0][1] == 1
    running.cancel()


def test_start_of_a_task_does_not_wake_a_waiter_for_its_end(system: System) -> None:
    asyncio.run(_watch_a_start(system))


async def _watch_a_start(system: System) -> None:
    waiter = Waiter(system.servers.redis.url())
    running = asyncio.create_task(waiter.run())
    with waiter.watch("task", begin=True) as changed, waiter.watch("task") as ended:
        confirmed = list(waiter._topics.values())  # noqa: SLF001 - otherwise a confirmation may arrive later
        await asyncio.to_thread(until, lambda: all(topic.confirmed for topic in confirmed), 10)
        assert await set_within(changed, 0)
        assert await set_within(ended, 0)
        assert waiter.waiting == 2
        await asyncio.to_thread(system.redis.publish, states.begun_channel("task"), "STARTED")
        assert await set_within(changed, 10)
        assert not ended.is_set()
        await asyncio.to_thread(system.redis.publish, states.channel("task"), "SUCCESS")
        assert await set_within(changed, 10)
        assert await set_within(ended, 10)
        assert changed.published_end is ended.published_end is None
    running.cancel()


def test_published_result_is_used_without_reading_the_record(system: System) -> None:
    asyncio.run(_told_the_end(system))


async def _told_the_end(system: System) -> None:
    """There is no record in Redis: a waiter that reads it would wait until its timeout."""
    waiter, store = Waiter(system.servers.redis.url()), Store(system.servers.redis.url())
    running = asyncio.create_task(waiter.run())
    settings = SimpleNamespace(wait_max_s=30, result_ttl_s=30, record_ttl_s=60)
    services: Any = SimpleNamespace(store=store, waiter=waiter, settings=settings)
    task_id = ids.uuid7()
    gone = asyncio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    await asyncio.to_thread(until, lambda: waiter.connected, 10)
    following = asyncio.create_task(follow(services, receive, task_id, 20))
    subscribed = partial(system.redis.pubsub_numsub, states.channel(task_id))
    await asyncio.to_thread(until, lambda: subscribed()[0][1], 10)
    await asyncio.to_thread(system.redis.publish, states.channel(task_id), 'SUCCESS {"n": 1}')
    assert await following == states.Record("SUCCESS", '{"n": 1}')
    running.cancel()
    await store.close()


def test_watch_right_after_a_lost_connection_waits_for_the_next_one(system: System) -> None:
    asyncio.run(_watch_while_connections_are_cut(system))


async def _watch_while_connections_are_cut(system: System) -> None:
    waiter = Waiter(system.servers.redis.url())
    running = asyncio.create_task(waiter.run())
    for task_id in ("the first", "the second", "the third"):
        # no await between the cut and the next `watch`: the waiter has not noticed the lost connection yet
        with waiter.watch(task_id) as changed:
            subscribed = partial(system.redis.pubsub_numsub, states.channel(task_id))
            await asyncio.to_thread(until, lambda listed=subscribed: listed()[0][1], 10)
            await asyncio.wait_for(changed.wait(), 10)
        assert system.redis.client_kill_filter(_type="pubsub")
    running.cancel()


def _pass(seconds: float) -> None:
    """Wait for the duration of an outage."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, seconds + 5)
