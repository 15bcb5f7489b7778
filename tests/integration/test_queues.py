"""A task in one queue does not wait behind a long task of another one while a process is idle anywhere."""

import time

import pytest

from tests.harness.system import Api, System, until

POOLS = pytest.mark.parametrize("pool", ["prefork", "threads"])


@POOLS
@pytest.mark.parametrize("first", ["Test_Query", "celery"])
def test_short_task_starts_at_once_in_an_idle_worker(system: System, pool: str, first: str) -> None:
    """One process consumes two queues: it was sent a message of each, and the second waited for the first one's end."""
    api = system.api()
    for _ in range(3):
        system.worker(WORKER_POOL=pool)
    tasks = ["held", "held_elsewhere"] if first == "Test_Query" else ["held_elsewhere", "held"]
    for task in tasks:
        api.accepted(task, task)
        until(lambda task=task: system.effects(task, "begun") == 1)  # type: ignore[misc]
    short = [api.accepted("sleep", "short"), api.accepted("elsewhere", "short")]
    began = time.monotonic()
    for task_id in short:
        assert api.ended(task_id, 5)["task_status"] == "SUCCESS"
    print("SHORT", time.monotonic() - began)
