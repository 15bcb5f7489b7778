"""The client, its command line, and its behaviour while all API processes are restarted."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import pytest

from apps.client import AsyncClient, Client, Problem, Task, TimedOut
from tests.harness.system import DEADLINE_S, ROOT, Api, System, until

TASKS_PER_S = 65  # each task is at least a post and a long poll
OPEN_MAX = 150  # open tasks at once; more would wait for a free connection of the client
ROUNDS = 12


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    shared.worker(WORKER_CONCURRENCY="2")
    return shared.api()


@pytest.fixture
def client(api: Api, shared: System) -> Iterator[Client]:
    with Client(api.url, shared.key) as client:
        yield client


def sleep(name: str, seconds: float = 0.0) -> dict[str, object]:
    return {"task": "sleep", "name": name, "seconds": seconds}


def test_submit_returns_the_id_and_result_the_end_of_a_task(client: Client) -> None:
    task_id = client.submit(sleep("plain"))
    assert client.result(task_id, 30) == Task(task_id, "SUCCESS", {"name_task": "plain", "state": "done"})
    assert client.submit(sleep("kept"), key="mine") == client.submit(sleep("kept"), key="mine")
    assert client.result(client.submit(sleep("keyless"), idempotent=False), 30).status == "SUCCESS"


def test_submit_batch_returns_an_id_or_a_problem_per_input(client: Client) -> None:
    first, wrong, last = client.submit_batch([sleep("a"), {"task": "sleep"}, sleep("b")])
    assert isinstance(wrong, Problem)
    assert wrong.status == 422
    assert isinstance(first, str)
    assert isinstance(last, str)
    assert {client.result(task_id, 30).status for task_id in (first, last)} == {"SUCCESS"}


def test_stream_yields_each_state_and_cancel_ends_a_task(client: Client) -> None:
    task_id = client.submit(sleep("streamed", 1))
    assert [task.status for task in client.stream(task_id, 30)] == ["STARTED", "SUCCESS"]
    assert client.cancel(task_id).status == "SUCCESS"
    task_id = client.submit(sleep("cancelled", 60))
    states = client.stream(task_id, 30)
    assert next(states).status == "STARTED"
    assert client.cancel(task_id).status == "STARTED"
    assert next(states).status == "REVOKED"


def test_errors_raise_problem_or_timed_out(client: Client, api: Api) -> None:
    for call in (lambda: client.result("x", 5), lambda: client.cancel("x"), lambda: list(client.stream("x", 5))):
        with pytest.raises(Problem) as caught:
            call()
        assert (caught.value.status, caught.value.kind) == (404, "not-found")
    long = client.submit(sleep("long", 60))
    with pytest.raises(TimedOut, match=r"STARTED|PENDING"):
        client.result(long, 0.5)
    client.cancel(long)
    with Client("http://127.0.0.1:1", "k") as nobody, pytest.raises(Problem, match="no answer"):
        nobody.submit(sleep("nobody"), deadline_s=0.5)
    with Client(api.url, "wrong") as stranger, pytest.raises(Problem, match="send a key"):
        stranger.submit(sleep("stranger"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "no-scheme", "ftp://127.0.0.1"])
def test_invalid_url_is_not_retried(url: str) -> None:
    started_s = time.monotonic()
    with Client(url, "k") as client, pytest.raises(httpx.UnsupportedProtocol):
        client.submit(sleep("nobody"))
    assert time.monotonic() - started_s < 20  # retries would last until the deadline of 30 s


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel", "two words"])
def test_key_with_invalid_characters_is_refused(api: Api, key: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="visible ASCII"):
            kind(api.url, key)
    assert "SLUICE_KEY: a bearer key has visible ASCII" in command(api, "cancel", "x", key=key, status=1).stderr


def test_silent_stream_ends_at_its_timeout(client: Client) -> None:
    task_id = client.submit(sleep("silent", 60))
    started_s = time.monotonic()
    with pytest.raises(TimedOut):
        list(client.stream(task_id, 2))
    assert 2 <= time.monotonic() - started_s < 30  # the task takes 60 s
    client.cancel(task_id)


def test_async_client_submits_reads_streams_and_cancels(api: Api, shared: System) -> None:
    async def run() -> None:
        async with AsyncClient(api.url, shared.key) as client:
            ids = await asyncio.gather(*(client.submit(sleep(f"async-{n}")) for n in range(10)))
            tasks = await asyncio.gather(*(client.result(task_id, 30) for task_id in ids))
            assert {task.status for task in tasks} == {"SUCCESS"}
            (task_id,) = await client.submit_batch([sleep("streamed", 1)])
            assert isinstance(task_id, str)
            assert [task.status async for task in client.stream(task_id, 30)] == ["STARTED", "SUCCESS"]
            assert (await client.cancel(task_id)).status == "SUCCESS"

    asyncio.run(run())


@pytest.mark.thorough
def test_rolling_restart_of_both_replicas_fails_no_request(
    system: System, record_property: Callable[[str, object], None]
) -> None:
    """A client that follows docs/api.md sends a hundred requests per second during twelve restarts of each replica."""
    system.worker(WORKER_POOL="threads", WORKER_CONCURRENCY="20")
    replicas = [system.api(), system.api()]
    stop = threading.Event()

    def restart() -> None:
        try:
            for replica in replicas * ROUNDS:
                _restart(replica)
        finally:
            stop.set()

    async def drive() -> tuple[list[Task], float]:
        async with AsyncClient(replicas[0].url, system.key) as one, AsyncClient(replicas[1].url, system.key) as other:

            async def run(number: int) -> Task:
                client = (one, other)[number % 2]
                return await client.result(await client.submit(sleep(f"rolling-{number}")), 60)

            started_s = time.monotonic()
            tasks: list[asyncio.Task[Task]] = []
            while not stop.is_set():  # constant rate; on a slow machine limited by OPEN_MAX
                open_now = sum(not task.done() for task in tasks)
                due = min(int((time.monotonic() - started_s) * TASKS_PER_S) + 1, len(tasks) + OPEN_MAX - open_now)
                tasks += [asyncio.create_task(run(number)) for number in range(len(tasks), due)]
                await asyncio.sleep(1 / TASKS_PER_S)
            posting_s = time.monotonic() - started_s
            return await asyncio.gather(*tasks), posting_s

    with ThreadPoolExecutor(1) as threads:
        restarting = threads.submit(restart)
        results, posting_s = asyncio.run(drive())
        restarting.result()
    record_property("requests/s during the rolling restart", round(2 * len(results) / posting_s))
    assert len(results) > 4 * ROUNDS  # two tasks per restart, even on the slowest machine
    assert [task.result for task in results] == [
        {"name_task": f"rolling-{number}", "state": "done"} for number in range(len(results))
    ]
    effects = system.effects_file.read_text().splitlines()
    assert all(effects.count(f"rolling-{number} begun") == 1 for number in range(len(results)))


def _restart(replica: Api) -> None:
    replica.child.stop()  # SIGTERM
    replica.child.start()
    until(lambda: replica.get("/healthz") == 200)


def command(api: Api, *arguments: str, key: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "SLUICE_URL": api.url, "SLUICE_KEY": key}
    line = [sys.executable, "-m", "tests.harness.client_command", *arguments]
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def posting(api: Api, system: System, stderr: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command that posts a task and waits for its end; killed if the test fails earlier."""
    environment = {"PATH": os.environ["PATH"], "SLUICE_URL": api.url, "SLUICE_KEY": system.key}
    line = [sys.executable, "-m", "tests.harness.client_command", "post", "first", "--name", "abc", "--wait"]
    with subprocess.Popen(line, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def test_post_with_wait_prints_each_state(system: System, tmp_path: Path) -> None:
    api = system.api()
    shown = tmp_path / "shown"
    with shown.open("wb") as stderr, posting(api, system, stderr) as command:
        until(lambda: "PENDING" in shown.read_text())  # there is no worker yet
        system.worker()
        stdout, _ = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0
    assert b'"task_status": "SUCCESS"' in stdout
    assert [line.split()[-1] for line in shown.read_text().splitlines()][-1] == "SUCCESS"


def test_commands_post_follow_and_cancel_print_the_state(api: Api, shared: System) -> None:
    done = command(api, "post", "first", "--name", "abc", "--wait", key=shared.key)
    assert '"task_status": "SUCCESS"' in done.stdout
    assert "SUCCESS" in done.stderr
    done = command(api, "post", "second", "--name", "abc", key=shared.key)
    assert '"task_status": "PENDING"' in done.stdout
    task_id = done.stdout.split('"')[3]
    assert "SUCCESS" in command(api, "follow", task_id, key=shared.key).stdout
    assert "SUCCESS" in command(api, "cancel", task_id, key=shared.key).stdout


def test_post_with_wait_updates_one_line_of_a_terminal(system: System) -> None:
    api = system.api()
    ours, theirs = os.openpty()
    with posting(api, system, theirs) as command:
        shown = os.read(ours, 65536).decode()  # PENDING, as there is no worker yet
        assert "PENDING" in shown
        system.worker()
        command.communicate(timeout=DEADLINE_S)
    os.close(theirs)
    with suppress(OSError):  # EIO marks the end of the output
        while part := os.read(ours, 65536):
            shown += part.decode()
    os.close(ours)
    assert shown.count("\n") == 1
    assert len(shown.split("\r")) > 2
    assert "SUCCESS" in shown.rsplit("\r", 2)[-2]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["post", "first", "--name", ""], 1, "first.name: String should have at least 1 character"),
        (["post", "first"], 2, "--name"),
        (["post", "nothing"], 2, "first"),
        (["cancel", "x"], 1, "no task of yours"),
        (["follow", "x"], 1, "no task of yours"),
    ],
)
def test_command_prints_a_sentence_for_each_error(
    api: Api, shared: System, arguments: list[str], status: int, sentence: str
) -> None:
    assert sentence in command(api, *arguments, key=shared.key, status=status).stderr


def test_command_without_a_key_asks_for_one(api: Api) -> None:
    assert "set SLUICE_KEY" in command(api, "cancel", "x", key="", status=1).stderr
