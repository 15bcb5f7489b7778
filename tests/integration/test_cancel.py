"""Cancelling a waiting, running or ended task: one final state, the same for every reader, also after races."""

import os
import random
import secrets
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import psutil
import pytest
from redis import Redis

from apps.contract import states
from apps.worker import cancel as cancellation
from apps.worker.limits import Cancelled, Limits
from apps.worker.slots import Slots
from apps.worker.watchdog import Watchdog
from tests.harness.records import Records
from tests.harness.servers import Servers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS

RACES = 200


def cancel(api: Api, task_id: str) -> tuple[int, str]:
    """Cancel a task; returns the status and the task state of the answer."""
    response = api.client.delete(f"/tasks/{task_id}")
    return response.status_code, response.json()["task_status"]


def test_cancelled_waiting_task_never_starts(system: System) -> None:
    api = system.api()
    task_id = api.accepted("sleep", "waits")
    assert cancel(api, task_id) == (200, "REVOKED")
    assert api.status(task_id)["task_status"] == "REVOKED"
    assert cancel(api, task_id) == (200, "REVOKED")  # a client repeats the call if its answer was lost
    system.worker()
    neighbour = api.accepted("sleep", "neighbour")
    assert api.ended(neighbour)["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert system.effects("waits", "begun") == 0
    assert api.ended(task_id) == {"task_id": task_id, "task_status": "REVOKED", "task_result": None}
    text = api.client.get(f"/tasks/{task_id}/events").text
    assert (text.count("event: "), text.count("event: REVOKED")) == (1, 1)


def test_cancel_interrupts_a_running_task_and_keeps_its_process(system: System) -> None:
    api = system.api()
    worker = system.worker()
    children = psutil.Process(worker.pid).children()
    task_id = api.accepted("sleep", "interrupted", seconds=60)
    until(lambda: system.effects("interrupted", "begun") == 1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(api.status, task_id, 20)
        assert cancel(api, task_id) == (202, "STARTED")
        assert waiting.result()["task_status"] == "REVOKED"
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert system.effects("interrupted", "done") == 0
    assert psutil.Process(worker.pid).children() == children


@pytest.mark.thorough
def test_task_that_ignores_its_cancellation_is_killed_with_its_process(system: System) -> None:
    api = system.api()
    system.worker()
    system.recorder()
    task_id = api.accepted("stubborn", "stubborn")
    until(lambda: system.effects("stubborn", "begun") == 1)
    assert cancel(api, task_id) == (202, "STARTED")
    assert api.ended(task_id, 30)["task_status"] == "REVOKED"
    assert (system.effects("stubborn", "begun"), system.effects("stubborn", "interrupted")) == (1, 1)
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    assert system.depth_messages("dead.parked") == 0


def test_thread_pool_finishes_a_cancelled_running_task(system: System) -> None:
    api = system.api()
    system.worker(WORKER_POOL="threads")
    task_id = api.accepted("held", "threaded")
    until(lambda: system.effects("threaded", "begun") == 1)
    assert cancel(api, task_id) == (202, "STARTED")
    system.release("threaded")
    assert api.ended(task_id)["task_status"] == "SUCCESS"


@POOLS
def test_cancelled_task_is_not_retried(system: System, pool: str) -> None:
    api = system.api()
    system.worker(WORKER_POOL=pool, RETRY_BACKOFF_S="4")
    task_id = api.accepted("flaky", "retried", failures=100)
    until(lambda: system.effects("retried", "begun") >= 1)
    status, state = cancel(api, task_id)
    assert (status, state) == (202, "STARTED")
    begun = system.effects("retried", "begun")
    assert api.ended(task_id)["task_status"] == "REVOKED"
    assert system.effects("retried", "begun") <= begun + 1  # one retry may have been in flight


def test_cancel_of_an_ended_task_is_a_conflict(system: System) -> None:
    api = system.api()
    system.worker()
    for task, state in (("sleep", "SUCCESS"), ("fail", "FAILURE")):
        task_id = api.accepted(task)
        before = api.ended(task_id)
        response = api.client.delete(f"/tasks/{task_id}")
        assert (response.status_code, response.json()["type"]) == (409, "urn:sluice:problem:already-ended")
        assert response.json()["task_status"] == state
        assert api.status(task_id) == before


def test_worker_receives_cancellations_after_its_pubsub_connection_was_lost(system: System) -> None:
    api = system.api()
    system.worker()
    task_id = api.accepted("sleep", "deaf", seconds=60)
    until(lambda: system.effects("deaf", "begun") == 1)
    assert system.redis.client_kill_filter(_type="pubsub")
    started_s = time.monotonic()
    assert cancel(api, task_id) == (202, "STARTED")
    assert api.ended(task_id)["task_status"] == "REVOKED"
    assert time.monotonic() - started_s < 40  # well before the task's own end after 60 s


@pytest.mark.parametrize("lost", [False, True])
def test_cancel_between_begin_and_the_start_of_the_function_takes_effect(servers: Servers, lost: bool) -> None:
    """`lost`: the pub/sub message of the cancellation is lost, as the listener was not connected."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # it starts threads and is signalled
        assert process.submit(_cancelled_early, servers.redis.url(), lost).result(60)


def _cancelled_early(url: str, lost: bool) -> bool:
    client, task_id = Redis.from_url(url), secrets.token_hex(8)
    records = Records(client)
    slots, limits = Slots(1), Limits()
    watchdog = Watchdog(slots)
    limits.use(slots[0])
    watchdog.watch(0, os.getpid())
    watchdog.start()
    before = client.pubsub_numsub(states.CANCEL_CHANNEL)[0][1]
    cancellation.listen(watchdog, url)
    until(lambda: client.pubsub_numsub(states.CANCEL_CHANNEL)[0][1] > before)
    limits.note(task_id)
    records.begin(task_id, "p1")
    if lost:
        client.setrange(states.key(task_id), 0, "C")
        client.client_kill_filter(_type="pubsub")
    else:
        records.cancel(task_id)

    try:
        with limits.running(None, 60):
            time.sleep(30)
    except Cancelled:
        return True
    return False


def test_cancel_of_an_unknown_task_is_not_found(system: System) -> None:
    api = system.api()
    assert api.client.delete("/tasks/x").status_code == 404


@pytest.mark.thorough
def test_races_of_cancel_and_end_give_every_reader_one_final_state(system: System) -> None:
    apis = [system.api(), system.api()]
    system.worker(WORKER_CONCURRENCY="4")

    def race(number: int) -> tuple[str, int, str]:
        task_id = apis[0].accepted("sleep", f"race-{number}", seconds=0.02)
        time.sleep(random.uniform(0, 0.3))  # noqa: S311 - random timing of the race, no secret
        return task_id, *cancel(apis[number % 2], task_id)

    races: list[tuple[str, int, str]] = []
    with ThreadPoolExecutor(4) as threads:
        # Repeat if one side won all races, on a very busy or a very fast machine.
        while len({status for _, status, _ in races}) < 2 and len(races) < 5 * RACES:
            races += threads.map(race, range(len(races), len(races) + RACES))
    finals = {task_id: apis[0].ended(task_id) for task_id, *_ in races}
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    for number, (task_id, status, told) in enumerate(races):
        final = finals[task_id]
        assert apis[1].status(task_id) == apis[0].status(task_id) == final
        assert apis[1].client.get(f"/tasks/{task_id}/events").text.count(f"event: {final['task_status']}") == 1
        begun, done = (system.effects(f"race-{number}", what) for what in ("begun", "done"))
        if status == 200:
            assert (told, final["task_status"], begun) == ("REVOKED", "REVOKED", 0)
        elif status == 202:
            assert final["task_status"] in {"REVOKED", "SUCCESS"}
        else:
            assert (status, told, final["task_status"]) == (409, "SUCCESS", "SUCCESS")
        assert done == 1 or final["task_status"] == "REVOKED"
    assert len({status for _, status, _ in races}) > 1, "the races were not close"
