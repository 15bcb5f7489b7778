"""The worker with the test tasks: `celery -A tests.harness.worker worker`."""

from celery import Celery

from apps.contract.settings import WorkerSettings, load
from apps.worker.celery_app import create_app
from tests.harness.tasks import TEST_TASKS, TEST_WORKS

app: Celery = create_app(load(WorkerSettings), TEST_TASKS, TEST_WORKS)
