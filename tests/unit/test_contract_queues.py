"""A task in an undeclared queue ends each process at start with a sentence that names the missing declaration."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import pytest

from apps.api import app as api
from apps.contract import queues
from apps.contract.settings import ApiSettings, WorkerSettings
from apps.contract.tasks import TaskSpec, registry
from apps.worker import celery_app as worker
from apps.worker import recorder
from ops import up
from ops.validate import __main__ as validate
from tests.harness.simple_tasks import WORK_QUEUE, NamedInput, Output


class Resize(NamedInput):
    task: Literal["resize"]


def tasks_in(queue: str) -> dict[str, TaskSpec]:
    return dict(registry(TaskSpec(name=f"{queue}:resize", input=Resize, output=Output, hard_limit_s=9)))


URLS = {
    "celery_broker_url": "amqp://user:long-and-secret@broker/",
    "celery_result_backend": "redis://:long-and-secret@redis/0",
}
STARTS: dict[str, Callable[[], object]] = {
    "api": lambda: api.create_app(ApiSettings(**URLS, task_id_key="0" * 16, auth_disabled=True), tasks_in("images")),  # type: ignore[arg-type]
    "worker": lambda: worker.create_app(WorkerSettings(**URLS), tasks_in("images"), []),  # type: ignore[arg-type]
    "recorder": lambda: recorder.main().send(None),
    "up": up.main,
    "validate": validate.main,
}


@pytest.mark.parametrize("start", STARTS)
def test_each_process_refuses_a_task_in_an_undeclared_queue(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (recorder, up, validate):
        monkeypatch.setattr(module, "TASKS", tasks_in("images"))
    with pytest.raises(SystemExit) as ended:
        STARTS[start]()
    assert str(ended.value).startswith("Task images:resize waits in the queue 'images', which is not declared: add")
    assert "WORK_QUEUES in apps/contract/topology.py" in str(ended.value)


@pytest.mark.parametrize("queue", ["dead", "dead.parked", "celery ", "test_query", f"{WORK_QUEUE}.images"])
def test_task_in_a_queue_that_is_not_a_work_queue_is_refused(queue: str) -> None:
    with pytest.raises(SystemExit, match="not declared"):
        queues.require_queues(tasks_in(queue))


@pytest.mark.parametrize("queue", [WORK_QUEUE, "celery"])
def test_task_in_a_declared_queue_is_accepted(queue: str) -> None:
    queues.require_queues(tasks_in(queue))


@pytest.mark.parametrize("option", ["-Q", "-X"])
def test_worker_refuses_to_select_an_undeclared_queue(option: str) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.harness.worker", "worker", option, f"{WORK_QUEUE},images"]
    environment = {"PATH": os.environ["PATH"], **{name.upper(): url for name, url in URLS.items()}}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode > 0
    assert ended.stderr.startswith(f"{option} names the queue 'images', which is not declared: use one of {WORK_QUEUE}")
    assert "Traceback" not in ended.stderr
