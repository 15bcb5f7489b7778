"""The Celery app: all its settings exist in Celery, and importing it needs no environment variables."""

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


def test_every_setting_exists_in_celery(settings: WorkerSettings) -> None:
    """The original set `worker_heartbeat` and others that do not exist or have no effect."""
    documented = {name for name, _ in defaults.flatten(defaults.NAMESPACES)}
    set_here = set(create_app(settings).conf.changes) - OURS - {"deprecated_settings"}  # set by Celery
    sources = inspect.getsource(celery.backends.base) + inspect.getsource(celery.backends.redis)
    assert {name for name in set_here - documented if name not in sources} == set()


def test_nonexistent_setting_is_detected(settings: WorkerSettings) -> None:
    app = create_app(settings)
    app.conf.worker_heartbeat = 120
    assert "worker_heartbeat" in app.conf.changes
    assert "worker_heartbeat" not in {name for name, _ in defaults.flatten(defaults.NAMESPACES)}


def test_task_without_a_function_prevents_the_start(settings: WorkerSettings) -> None:
    with pytest.raises(SystemExit, match=f"{WORK_QUEUE}:first has no function"):
        create_app(settings, TASKS, [])


def test_request_is_decoded_once_and_keeps_the_headers_for_a_retry(settings: WorkerSettings) -> None:
    text = '{"task": "first", "name": "a"}'
    sent = task_message(TASKS["first"], text, task_id="i", owner="o", request_id="r", traceparent="00-a-b-01")
    headers = sent.headers | {"x-team": "theirs"}
    message = SimpleNamespace(
        headers=headers, body=sent.body, payload=json.loads(sent.body), properties={}, delivery_info={},
        content_type="application/json", content_encoding="utf-8",
    )  # fmt: skip
    request = Request(message, app=create_app(settings, TASKS, WORKS), hostname="h")
    assert request.body is message.payload
    assert request.content_type is None  # otherwise the pool would decode it again
    assert request.request_dict["headers"] == Context(headers).headers
    assert {"publish_id", "owner", "request_id", "traceparent", "x-team"} == set(request.request_dict["headers"])


def test_log_context_is_cleared_after_a_task(settings: WorkerSettings) -> None:
    app = create_app(settings, TASKS, WORKS)
    task = app.tasks[TASKS["first"].name]
    assert task.backend is app.backend
    logs.task_id.set("i")
    logs.request_id.set("r")
    task.backend.process_cleanup()  # Celery calls this after each task
    assert logs.task_id.get() is logs.request_id.get() is None


@pytest.mark.parametrize("module", ["apps.worker.celery_app", "apps.api.app", "apps.worker.recorder"])
def test_import_reads_no_environment_variables(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], env={}, check=True, timeout=120)
