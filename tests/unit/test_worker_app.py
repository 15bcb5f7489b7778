"""The Celery app: its settings are Celery's, and importing it needs no environment."""

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import celery.backends.base
import celery.backends.redis
import pytest
from celery.app import defaults
from celery.app.task import Context

from apps import logs
from apps.contract.message import task_message
from apps.contract.settings import WorkerSettings
from apps.worker.celery_app import create_app
from apps.worker.request import Request
from tests.harness import simple_tasks
from tests.harness.simple_tasks import TASKS, WORK_QUEUE
from tests.harness.task_functions import works

WORKS = works(TASKS, simple_tasks)
OURS = {"sluice_record_ttl_s", "sluice_result_ttl_s", "sluice_return_max_s"}


@pytest.fixture
def settings() -> WorkerSettings:
    return WorkerSettings(
        celery_broker_url="amqp://worker:long-and-secret@broker/",
        celery_result_backend="redis://:long-and-secret@redis/0",
    )


def test_every_setting_is_one_that_celery_has(settings: WorkerSettings) -> None:
    """Defect 8: the original set `worker_heartbeat` and others that do not exist, or do nothing."""
    documented = {name for name, _ in defaults.flatten(defaults.NAMESPACES)}
    set_here = set(create_app(settings).conf.changes) - OURS - {"deprecated_settings"}  # the last is Celery's own
    sources = inspect.getsource(celery.backends.base) + inspect.getsource(celery.backends.redis)
    assert {name for name in set_here - documented if name not in sources} == set()


def test_setting_that_does_not_exist_would_be_noticed(settings: WorkerSettings) -> None:
    app = create_app(settings)
    app.conf.worker_heartbeat = 120
    assert "worker_heartbeat" in app.conf.changes
    assert "worker_heartbeat" not in {name for name, _ in defaults.flatten(defaults.NAMESPACES)}


def test_task_without_a_function_stops_the_start(settings: WorkerSettings) -> None:
    with pytest.raises(SystemExit, match=f"{WORK_QUEUE}:first has no function"):
        create_app(settings, TASKS, [])


def test_request_is_decoded_once_and_has_the_headers_that_a_retry_hands_on(settings: WorkerSettings) -> None:
    text = '{"task": "first", "name": "a"}'
    sent = task_message(TASKS["first"], text, task_id="i", owner="o", request_id="r", traceparent="00-a-b-01")
    headers = sent.headers | {"x-team": "theirs"}
    message = SimpleNamespace(
        headers=headers, body=sent.body, payload=json.loads(sent.body), properties={}, delivery_info={},
        content_type="application/json", content_encoding="utf-8",
    )  # fmt: skip
    request = Request(message, app=create_app(settings, TASKS, WORKS), hostname="h")
    assert request.body is message.payload
    assert request.content_type is None  # or the pool would decode it again
    assert request.request_dict["headers"] == Context(headers).headers
    assert {"publish_id", "owner", "request_id", "traceparent", "x-team"} == set(request.request_dict["headers"])


def test_lines_after_a_task_are_not_about_it(settings: WorkerSettings) -> None:
    app = create_app(settings, TASKS, WORKS)
    task = app.tasks[TASKS["first"].name]
    assert task.backend is app.backend
    logs.task_id.set("i")
    logs.request_id.set("r")
    task.backend.process_cleanup()  # Celery calls it so after each task
    assert logs.task_id.get() is logs.request_id.get() is None


@pytest.mark.parametrize("module", ["apps.worker.celery_app", "apps.api.app", "apps.worker.recorder"])
def test_importing_reads_no_environment(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], env={}, check=True, timeout=120)
