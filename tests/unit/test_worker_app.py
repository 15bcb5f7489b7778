"""The Celery app: its settings are Celery's, and importing it needs no environment."""

import inspect
import subprocess
import sys
from types import ModuleType

import celery.backends.base
import celery.backends.redis
import pytest
from celery.app import defaults

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import TASKS
from apps.worker.app import create_app

OURS = {"sluice_record_ttl_s"}


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


def test_retries_are_for_the_declared_errors_five_times(settings: WorkerSettings) -> None:
    app = create_app(settings)
    for spec in TASKS.values():
        assert app.tasks[spec.name].max_retries == 5
        assert app.tasks[spec.name].autoretry_for == spec.transient


def test_task_without_a_function_stops_the_start(settings: WorkerSettings) -> None:
    with pytest.raises(SystemExit, match="Test_Query:task_1 has no function 'task_1' in empty"):
        create_app(settings, TASKS, ModuleType("empty"))


@pytest.mark.parametrize("module", ["apps.worker.app", "apps.api.app", "apps.worker.recorder"])
def test_importing_reads_no_environment(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], env={}, check=True, timeout=30)
