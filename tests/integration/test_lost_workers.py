"""Workers that die or are stopped while they run a task."""

import signal
from pathlib import Path

import psutil
import pytest

from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import System, until
from tests.harness.thorough import POOLS


def test_task_of_a_killed_child_runs_again_and_ends_once(system: System) -> None:
    api = system.api()
    worker = system.worker()
    task_id = api.accepted("held", "killed")
    until(lambda: system.effects("killed", "begun") == 1)
    psutil.Process(worker.pid).children()[0].kill()
    until(lambda: system.effects("killed", "begun") == 2)
    system.release("killed")
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert (system.effects("killed", "begun"), system.effects("killed", "done")) == (2, 1)
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)


def test_worker_survives_a_lost_connection_right_after_a_lost_child(system: System) -> None:
    """Unpatched Celery ended the worker here: it registered all children of the pool again, including the dead one."""
    api, worker = system.api(), system.worker("tests.harness.unreaped_child_worker")

    def said() -> list[str]:
        return [line["message"] for line in system.log_lines()]

    psutil.Process(worker.pid).children()[0].kill()
    until(lambda: "a child ended" in said())
    until(lambda: system.broker_connections("worker"))
    system.close_broker_connections("worker")
    until(lambda: said().count("consuming") >= 2 or not worker.alive)
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
    assert worker.alive


def test_task_of_a_killed_worker_runs_in_another_worker(system: System) -> None:
    api = system.api()
    worker = system.worker()
    task_id = api.accepted("held", "killed")
    until(lambda: system.effects("killed", "begun") == 1)
    worker.kill()
    system.release("killed")
    system.worker()
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert (system.effects("killed", "begun"), system.effects("killed", "done")) == (2, 1)


def test_task_that_kills_its_process_becomes_a_dead_letter_and_other_tasks_succeed(system: System) -> None:
    """In the original such a task was redelivered forever."""
    system.define(delivery_limit=3)
    api = system.api()
    system.recorder()
    ids = [api.accepted("sleep", "before"), api.accepted("kill_child", "poison"), api.accepted("sleep", "after")]
    system.worker()
    before, poison, after = (api.ended(task_id) for task_id in ids)
    assert (before["task_status"], after["task_status"]) == ("SUCCESS", "SUCCESS")
    assert poison["task_status"] == "FAILURE"
    assert poison["task_result"]["type"] == "DeliveryLimitExceeded"
    assert "lost each time" in poison["task_result"]["message"]
    assert system.effects("poison", "begun") == 4
    until(lambda: system.depth_messages("dead.parked") == 1)
    until(lambda: system.depth_messages("dead") == system.depth_messages(WORK_QUEUE) == 0)


@pytest.mark.thorough
@pytest.mark.timeout(400)  # it replaces twenty-one processes
def test_default_delivery_limit_ends_a_task_that_kills_its_process(system: System) -> None:
    api = system.api()
    system.recorder()
    system.worker()
    assert api.ended(api.accepted("kill_child", "poison"), 300)["task_status"] == "FAILURE"
    assert system.effects("poison", "begun") == 21


@POOLS
def test_task_that_calls_exit_is_a_failure_and_its_process_continues(system: System, pool: str) -> None:
    api = system.api()
    worker = system.worker(WORKER_POOL=pool)
    children = psutil.Process(worker.pid).children()
    leaves, next_ = api.accepted("leave", "leaves"), api.accepted("sleep", "next")
    assert api.ended(leaves)["task_result"] == {"type": "SystemExit", "message": "3"}
    assert system.effects("leaves", "begun") == 1
    assert api.ended(next_)["task_status"] == "SUCCESS"
    assert psutil.Process(worker.pid).children() == children


@pytest.mark.thorough
def test_task_whose_cleanup_fails_during_a_lost_connection_runs_again(system: System) -> None:
    """A lost connection ends the processes of its tasks; an error of their cleanup is not a result of the task."""
    api = system.api()
    system.recorder()
    system.worker()
    task_id = api.accepted("unclean", "unclean")
    until(lambda: system.effects("unclean", "begun") == 1)
    until(lambda: system.broker_connections("worker"))
    system.close_broker_connections("worker")
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert system.effects("unclean", "begun") == 2
    until(lambda: system.depth_messages(WORK_QUEUE) == 0)
    assert system.depth_messages("dead.parked") == 0


def test_process_that_has_not_confirmed_its_task_is_ended_after_a_lost_connection(system: System) -> None:
    """Celery ends only processes that have confirmed their task: the task would run twice, and occupy a pool slot."""
    api, worker = system.api(), system.worker()
    process = psutil.Process(worker.pid).children()[0]
    process.suspend()
    task_id = api.accepted("held", "silent")
    # the worker has sent the task to the process
    until(lambda: system.unacked_messages(WORK_QUEUE) == 1)
    _lose_connection(system)
    process.resume()
    until(lambda: not process.is_running())
    system.release("silent")
    assert api.ended(task_id)["task_status"] == "SUCCESS"


@pytest.mark.thorough
def test_process_that_is_being_ended_gets_no_other_task(system: System) -> None:
    """Otherwise the next task would be killed with the process 10 s later, and become a FAILURE."""
    api, worker = system.api(), system.worker()
    process = psutil.Process(worker.pid).children()[0]
    deaf = api.accepted("deaf", "deaf")
    until(lambda: system.effects("deaf", "begun") == 1)
    _lose_connection(system)
    next_ = api.accepted("held", "next")
    system.release("deaf")
    until(lambda: system.effects("next", "begun") == 1)
    assert not process.is_running()
    system.release("next")
    assert [api.ended(each)["task_status"] for each in (deaf, next_)] == ["SUCCESS", "SUCCESS"]


def _lose_connection(system: System) -> None:
    """Close the worker's connection, and wait until it has reconnected."""
    until(lambda: system.broker_connections("worker"))
    system.close_broker_connections("worker")
    until(lambda: [line["message"] for line in system.log_lines()].count("consuming") >= 2)


@POOLS
def test_sigterm_lets_a_running_task_finish(system: System, pool: str) -> None:
    """In the original, the shell did not pass the signal on."""
    api = system.api()
    worker = system.worker(WORKER_POOL=pool, SOFT_SHUTDOWN_S="30")
    task_id = api.accepted("held", "finishes")
    waits = api.accepted("sleep", "waits")
    until(lambda: system.effects("finishes", "begun") == 1)
    worker.signal(signal.SIGTERM)
    until(lambda: not Path(worker.env["READINESS_FILE"]).exists(), what="a worker that accepts no more tasks")
    system.release("finishes")
    until(lambda: not worker.alive, 25)  # before it would requeue the task
    assert api.status(task_id)["task_status"] == "SUCCESS"
    assert api.status(waits)["task_status"] == "PENDING"
    until(lambda: system.depth_messages(WORK_QUEUE) == 1)  # only the waiting task: the other one was acked
    system.worker()
    assert api.ended(waits)["task_status"] == "SUCCESS"
    assert system.effects("finishes", "begun") == 1


@POOLS
def test_sigterm_requeues_a_task_that_does_not_end_in_time(system: System, pool: str) -> None:
    api = system.api()
    worker = system.worker(WORKER_POOL=pool, SOFT_SHUTDOWN_S="1")
    task_id = api.accepted("held", "long")
    until(lambda: system.effects("long", "begun") == 1)
    worker.signal(signal.SIGTERM)
    until(lambda: not worker.alive, 20)  # the task would not end by itself
    assert system.effects("long", "done") == 0
    system.release("long")
    system.worker()
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert (system.effects("long", "begun"), system.effects("long", "done")) == (2, 1)


def test_hard_time_limit_ends_a_stuck_task(system: System) -> None:
    api = system.api()
    system.worker()
    system.recorder()
    ended = api.ended(api.accepted("stuck", "stuck"))
    assert ended["task_result"] == {
        "type": "HardTimeLimitExceeded",
        "message": "it ran for longer than its hard time limit of 3 s",
    }
    assert api.ended(api.accepted("sleep", "next"))["task_status"] == "SUCCESS"
