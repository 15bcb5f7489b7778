"""Large results: reading them does not delay readers of small results, and their memory is bounded."""

import asyncio
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager

import httpx
import psutil
import pytest

from apps.api import large_results
from apps.api.large_results import LargeResults
from apps.api.store import Unavailable
from apps.contract import states
from apps.contract.ids import TaskIds
from ops.servers.child import Child
from tests.harness.records import Records
from tests.harness.result_readers import connect, read
from tests.harness.system import ROOT, Api, System, until
from tests.harness.thorough import thorough

MIB = 1024 * 1024
LARGE_BYTES = 10 * MIB
READERS, ROUNDS, SECONDS = 64, 3, 2.0
SMALL_READERS = 8
FROM = 15  # offset of the result in a record


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    return shared.api()


def stored(system: System, size_bytes: int, task_id: str | None = None) -> str:
    """Store the record of a task that ended with a result of this size; returns its id."""
    task_id = task_id or TaskIds(system.task_id_key.encode()).new("tests")
    meta = json.dumps({"data": "x" * (size_bytes - len('{"data": ""}'))})
    assert Records(system.redis).end(task_id, "p", "SUCCESS", meta, result_ttl_s=600) == "stored"
    return task_id


@contextmanager
def reading(system: System, api: Api, task_ids: list[str]) -> Iterator[Child]:
    """Run a process that reads these tasks; each of its readers has received an answer when the block starts."""
    log = system.folder / f"readers-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "tests.harness.result_readers", api.url, system.key, str(READERS), *task_ids]
    child = Child("readers", command, log=log, env=system.environment("api"), cwd=ROOT)
    child.start()
    try:
        until(lambda: log.exists() and log.stat().st_size >= 2 * READERS, what="an answer for each reader")
        yield child
        assert child.alive, child.last_lines()
    finally:
        child.kill()


async def _latencies_s(api: Api, key: str, task_id: str) -> list[float]:
    found: list[float] = []
    end_s = time.monotonic() + SECONDS

    async def one() -> None:
        connection = await connect(api.url)
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            await read(api.url, key, task_id, connection)
            found.append(time.monotonic() - started_s)
            await asyncio.sleep(0.01)
        connection[1].close()

    await asyncio.gather(*(one() for _ in range(SMALL_READERS)))
    return found


@pytest.mark.thorough  # uses all CPUs for half a minute
@pytest.mark.timeout(400)
def test_readers_of_large_results_do_not_delay_readers_of_small_ones(
    system: System,
    record_property: Callable[[str, object], None],
) -> None:
    api = system.api()
    small, beside = stored(system, 100), [stored(system, 100) for _ in range(4)]
    large = [stored(system, LARGE_BYTES) for _ in range(4)]
    process = psutil.Process(api.child.pid)
    p95_ms: dict[str, list[float]] = {"small": [], "large": []}
    cpu: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(ROUNDS):
        for name, task_ids in (("small", beside), ("large", large)):
            with reading(system, api, task_ids):
                process.cpu_percent()
                latencies_s = asyncio.run(_latencies_s(api, system.key, small))
                cpu[name].append(process.cpu_percent())
                p95_ms[name].append(statistics.quantiles(latencies_s, n=20)[-1] * 1000)
    record_property("p95 of small results, ms", p95_ms)
    record_property("CPU of the API, percent of one", cpu)
    record_property("memory of the API, MiB", process.memory_info().rss // MIB)
    assert statistics.median(p95_ms["large"]) <= 3 * statistics.median(p95_ms["small"])
    assert process.memory_info().rss < 400 * MIB


@pytest.mark.parametrize("size_bytes", [states.SMALL_BYTES_MAX, states.SMALL_BYTES_MAX + 1, 300 * 1024, LARGE_BYTES])
def test_every_call_returns_a_result_of_any_size_whole(shared: System, api: Api, size_bytes: int) -> None:
    task_id = stored(shared, size_bytes)
    expected = {"task_id": task_id, "task_status": "SUCCESS", "task_result": {"data": "x" * (size_bytes - 12)}}
    for query in ("", "?wait=1", "?wait=0&wait=0"):  # the last one takes FastAPI's route
        response = api.client.get(f"/tasks/{task_id}{query}")
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert response.json() == expected
    events = api.client.get(f"/tasks/{task_id}/events").text
    head, _, data = events.rpartition("data: ")
    assert head.endswith("id: SUCCESS\nevent: SUCCESS\n")
    assert json.loads(data) == expected


@pytest.mark.parametrize("query", ["?wait=25", *thorough("/events")])
def test_many_waiting_clients_receive_one_large_result(shared: System, api: Api, query: str) -> None:
    task_id = TaskIds(shared.task_id_key.encode()).new("tests")

    async def wait() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, headers=api.client.headers, timeout=60) as client:
            waiting = [asyncio.create_task(client.get(f"/tasks/{task_id}{query}")) for _ in range(30)]
            await asyncio.to_thread(until, lambda: api.metric("sluice_long_polls") == len(waiting))
            await asyncio.to_thread(stored, shared, 3 * MIB, task_id)
            return list(await asyncio.gather(*waiting))

    answers = asyncio.run(wait())
    assert [answer.status_code for answer in answers] == [200] * 30
    assert min(len(answer.content) for answer in answers) > 3 * MIB


def test_stalled_clients_are_disconnected_and_do_not_block_other_clients(shared: System, api: Api) -> None:
    """The stalled clients hold every slot for large results until the write timeout."""
    task_id, small = stored(shared, LARGE_BYTES), stored(shared, 100)
    address = httpx.URL(api.url)
    with ExitStack() as ends:
        for _ in range(8):
            stalled = ends.enter_context(socket.create_connection((address.host, address.port or 80), timeout=10))
            stalled.sendall(
                f"GET /tasks/{task_id} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {shared.key}\r\n\r\n".encode()
            )
            assert stalled.recv(1)
        assert api.client.get(f"/tasks/{small}", timeout=5).status_code == 200
        assert api.client.get(f"/tasks/{task_id}").status_code == 200
    until(lambda: "client takes nothing of its answer" in shared.logs(), what="a line about the stalled clients")


@pytest.fixture
def store(shared: System, monkeypatch: pytest.MonkeyPatch) -> LargeResults:
    monkeypatch.setattr(large_results, "SLOT_DEADLINE_S", 0.2)
    return LargeResults(shared.servers.redis.url())


def test_number_of_held_results_is_bounded_per_size_class(shared: System, store: LargeResults) -> None:
    task_id, other = stored(shared, MIB), stored(shared, 100_000)

    async def run() -> None:
        async with AsyncExitStack() as held:
            values = [await held.enter_async_context(store.held(task_id, MIB, FROM)) for _ in range(8)]
            assert {len(value) for value in values} == {MIB}
            with pytest.raises(Unavailable):
                await held.enter_async_context(store.held(task_id, MIB, FROM))
            await held.enter_async_context(store.held(other, 100_000, FROM))
        async with store.held(task_id, MIB, FROM) as value:
            assert len(value) == MIB
        await store.close()

    asyncio.run(run())


def test_cancelled_reader_frees_its_slot(shared: System, store: LargeResults) -> None:
    task_id, other = stored(shared, LARGE_BYTES), stored(shared, MIB)

    async def hold() -> None:
        async with store.held(task_id, LARGE_BYTES, FROM):
            await asyncio.Event().wait()

    async def run() -> None:
        for turns in (0, 1, 5, 20, 100, 1000):  # steps of the event loop: before, during and after a read
            leaving = [asyncio.create_task(hold()) for _ in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for one in leaving:
                one.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            async with AsyncExitStack() as held:
                for _ in range(8):  # no reply to a cancelled read may arrive here
                    assert len(await held.enter_async_context(store.held(other, MIB, FROM))) == MIB
        await store.close()

    asyncio.run(run())


def test_lost_connection_is_replaced_and_a_missing_record_is_unavailable(shared: System, store: LargeResults) -> None:
    task_id = stored(shared, MIB)
    key = states.key(task_id)

    async def read() -> int:
        async with store.held(task_id, MIB, FROM) as value:
            return len(value)

    async def run() -> None:
        assert await read() == MIB
        shared.redis.client_kill_filter(_type="normal", skipme=True)
        assert await read() == MIB
        shared.redis.delete(key)
        with pytest.raises(Unavailable):
            await read()
        shared.redis.rpush(key, "no string")
        with pytest.raises(Unavailable):
            await read()
        await store.close()

    asyncio.run(run())


def test_large_result_of_version_0_1_is_returned_as_valid_json(shared: System, api: Api) -> None:
    """Version 0.1 stored lone surrogates and NaN unchanged."""
    task_id = TaskIds(shared.task_id_key.encode()).new("tests")
    meta = '{"data": "' + "x" * 20_000 + '\\udce9", "share": NaN}'
    shared.redis.hset(states.record_keys(task_id).earlier, mapping={"state": "SUCCESS", "publish": "p", "meta": meta})
    answer = api.client.get(f"/tasks/{task_id}")

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    result = json.loads(answer.content, parse_constant=refused)["task_result"]
    assert result["share"] is None
    assert not any(0xD800 <= ord(one) < 0xE000 for one in result["data"])
