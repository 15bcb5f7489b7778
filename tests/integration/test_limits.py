"""Time limits and cancellation end any task with all its processes; tasks may use other processes."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.runaway_functions import HELPERS, RUNAWAYS, STARTS, started
from tests.harness.servers import Servers
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOLS, thorough

# One start method of each kind: a child, orphans in own sessions with and without an environment, multiprocessing.
QUICK = ("subprocess", "double fork", "empty environment", "process by spawn", "executor by forkserver")
WAYS = pytest.mark.parametrize("how", [*QUICK, *thorough(*(how for how in STARTS if how not in QUICK))])


@pytest.fixture(scope="module")
def running(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Api]]:
    with System(servers, tmp_path_factory.mktemp("system")) as system:
        api = system.api()
        system.recorder()
        system.worker(WORKER_CONCURRENCY="4")
        yield system, api


def is_running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(system: System, name: str) -> bool:
    pids = started(system.folder, name)
    assert pids, f"{name} started nothing"
    return not any(map(is_running, pids))


def cancel_once_begun(system: System, api: Api, task_id: str, name: str) -> None:
    until(lambda: system.effects(name, "begun") >= 1)
    assert api.client.delete(f"/tasks/{task_id}").status_code == 202


def test_hard_limit_ends_every_kind_of_endless_task(running: tuple[System, Api]) -> None:
    _, api = running
    ids = {how: api.accepted("runaway", how, how=how) for how in RUNAWAYS}
    ended = {how: api.ended(task_id, 60)["task_result"] for how, task_id in ids.items()}
    expected = {"type": "HardTimeLimitExceeded", "message": "it ran for longer than its hard time limit of 2 s"}
    assert ended == dict.fromkeys(RUNAWAYS, expected)
    assert api.ended(api.accepted("brief", "next"))["task_status"] == "SUCCESS"


@pytest.mark.parametrize("how", ["C code", "blocked signals"])
def test_cancel_ends_a_task_that_handles_no_signal(running: tuple[System, Api], how: str) -> None:
    system, api = running
    name = f"cancelled {how}"
    task_id = api.accepted("endless", name, how=how)
    cancel_once_begun(system, api, task_id, name)
    assert api.ended(task_id, 40)["task_status"] == "REVOKED"
    assert system.effects(name, "begun") == 1


@pytest.fixture(scope="module")
def limited(running: tuple[System, Api], request: pytest.FixtureRequest) -> dict[tuple[str, str], dict[str, Any]]:
    """The answers of a task per start method and limit; all tasks are posted at once."""
    _, api = running
    selected = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [item.callspec.params for item in selected if "limited" in item.fixturenames]
    kinds = [(str(call["task"]), str(call["how"])) for call in calls]
    ids = {(task, how): api.accepted(task, f"{task}-{how}", how=how) for task, how in kinds}
    return {kind: api.ended(task_id, 120) for kind, task_id in ids.items()}


@WAYS
@pytest.mark.parametrize(
    ("task", "type_"), [("start_hard", "HardTimeLimitExceeded"), ("start_soft", "SoftTimeLimitExceeded")]
)
def test_process_started_by_a_task_ends_at_the_limit_of_the_task(
    running: tuple[System, Api], limited: dict[tuple[str, str], dict[str, Any]], task: str, type_: str, how: str
) -> None:
    system, _ = running
    assert limited[task, how]["task_result"]["type"] == type_
    until(lambda: gone(system, f"{task}-{how}"))


@WAYS
def test_process_started_by_a_cancelled_task_is_gone_once_the_task_is_revoked(
    running: tuple[System, Api], how: str
) -> None:
    system, api = running
    name = f"cancelled-{how}"
    task_id = api.accepted("start", name, how=how)
    until(lambda: started(system.folder, name))
    cancel_once_begun(system, api, task_id, name)
    assert api.ended(task_id)["task_status"] == "REVOKED"
    assert gone(system, name)
    assert system.effects(name, "begun") == 1


@pytest.mark.parametrize("then", ["swallow", *thorough("communicate")])
def test_task_that_ignores_its_cancellation_is_ended_with_its_processes(running: tuple[System, Api], then: str) -> None:
    system, api = running
    name = f"cancelled-{then}"
    task_id = api.accepted("start", name, how="double fork", then=then)
    until(lambda: started(system.folder, name))
    cancel_once_begun(system, api, task_id, name)
    assert api.ended(task_id, 40)["task_status"] == "REVOKED"
    assert gone(system, name)
    assert system.effects(name, "begun") == 1


@WAYS
@pytest.mark.parametrize("then", ["return", "fail"])
def test_process_keeps_running_after_its_task_ended_by_itself(running: tuple[System, Api], how: str, then: str) -> None:
    system, api = running
    name = f"{then}-{how}"
    ended = api.ended(api.accepted("start", name, how=how, then=then))
    assert ended["task_status"] == ("SUCCESS" if then == "return" else "FAILURE")
    (pid,) = until(lambda: started(system.folder, name))
    assert is_running(pid)


def test_limit_of_a_task_does_not_end_processes_of_earlier_tasks(system: System) -> None:
    api, _ = system.api(), system.recorder()
    system.worker()
    for how in ("subprocess", "double fork"):
        api.ended(api.accepted("start", how, how=how, then="return"))
    ended = api.ended(api.accepted("start_hard", "limited", how="subprocess"))
    assert ended["task_result"]["type"] == "HardTimeLimitExceeded"
    until(lambda: gone(system, "limited"))
    left = [pid for how in ("subprocess", "double fork") for pid in started(system.folder, how)]
    assert [is_running(pid) for pid in left] == [True, True]


def test_shared_memory_of_a_killed_task_is_removed(system: System) -> None:
    """Own worker: processes of earlier tasks would keep the resource tracker alive, which removes the memory."""
    api, _ = system.api(), system.recorder()
    system.worker()
    name = f"test-{system.vhost}"
    task_id = api.accepted("start_hard", name, how="shared memory")
    file = Path("/dev/shm") / name  # noqa: S108 - the mount of shared memory
    until(file.exists)
    assert api.ended(task_id)["task_result"]["type"] == "HardTimeLimitExceeded"
    until(lambda: not file.exists())


def test_process_started_by_a_crashed_task_is_ended(system: System) -> None:
    system.define(delivery_limit=1)
    api, _ = system.api(), system.recorder()
    system.worker()
    assert api.ended(api.accepted("start", "lost", how="double fork", then="die"), 60)["task_status"] == "FAILURE"
    until(lambda: gone(system, "lost"))


def test_worker_that_requeues_its_task_at_shutdown_ends_the_processes_of_the_task(system: System) -> None:
    api = system.api()
    worker = system.worker(SOFT_SHUTDOWN_S="1")
    api.accepted("start", "handed back", how="double fork")
    until(lambda: started(system.folder, "handed back"))
    worker.signal(signal.SIGTERM)
    until(lambda: not worker.alive)
    assert gone(system, "handed back")


def test_task_that_continues_after_a_lost_connection_is_killed_with_its_processes(system: System) -> None:
    """The broker delivers the task again, maybe to another worker: it must not run twice at the same time."""
    api = system.api()
    worker = system.worker()
    api.accepted("start", "twice", how="double fork", then="swallow")
    (first,) = until(lambda: started(system.folder, "twice"))
    (process,) = psutil.Process(worker.pid).children()
    until(lambda: system.broker_connections("worker"))
    system.close_broker_connections("worker")
    until(lambda: not process.is_running(), 40)
    until(lambda: not is_running(first))


@POOLS
def test_tasks_may_use_other_processes(system: System, pool: str) -> None:
    api = system.api()
    system.worker(WORKER_POOL=pool, WORKER_CONCURRENCY="2")
    for _ in range(2):  # the second round can reuse processes of the first
        ids = {how: api.accepted("helped", how, how=how) for how in HELPERS}
        ended = {how: api.ended(task_id, 120)["task_result"] for how, task_id in ids.items()}
        wrong = {how: result for how, result in ended.items() if result.get("number") != 9}
        assert not wrong


def test_thread_pool_logs_at_start_that_it_cannot_end_a_running_task(system: System) -> None:
    system.worker(WORKER_POOL="threads")
    until(lambda: any("ends no task that runs" in line["message"] for line in system.log_lines()))


def _reasons(system: System) -> list[tuple[str, str]]:
    lines = [line for line in system.log_lines() if line["message"] == "pool process replaced"]
    return [(line["reason"], line["exit"]) for line in lines]


KILLED = "signal 9 (SIGKILL)"


@pytest.mark.parametrize(
    ("task", "fields", "reason", "exit_"),
    [
        ("runaway", {"how": "C code"}, "its task ran for longer than its hard time limit", KILLED),
        ("start", {"how": "respawn", "then": "die"}, "it was lost while it ran a task", "signal 11 (SIGSEGV)"),
        *thorough(("end", {"how": "status"}, "it was lost while it ran a task", "exitcode 7")),
        ("grow", {"mib": 300}, "after its task it used more memory than WORKER_MAX_MEMORY_MIB", "exitcode 155"),
    ],
)
def test_log_states_why_a_pool_process_was_replaced(
    system: System, task: str, fields: dict[str, Any], reason: str, exit_: str
) -> None:
    system.define(delivery_limit=1)
    api, _ = system.api(), system.recorder()
    system.worker(WORKER_MAX_MEMORY_MIB="200")
    api.ended(api.accepted(task, "replaced", **fields), 60)
    until(lambda: _reasons(system))
    assert set(_reasons(system)) == {(reason, exit_)}
    assert "exited with" not in system.logs()  # billiard's own line is less precise


@pytest.mark.parametrize(
    ("then", "reason", "exit_"),
    [
        ("wait", "its task was interrupted, and what that had started was ended", "exitcode 155"),
        ("swallow", "its task was cancelled, and went on for 10 s", KILLED),
    ],
)
def test_log_states_that_a_pool_process_was_replaced_after_a_cancel(
    system: System, then: str, reason: str, exit_: str
) -> None:
    api = system.api()
    system.worker()
    task_id = api.accepted("start", "cancelled", how="subprocess", then=then)
    cancel_once_begun(system, api, task_id, "cancelled")
    assert api.ended(task_id, 40)["task_status"] == "REVOKED"
    until(lambda: _reasons(system) == [(reason, exit_)], what="the reason")
