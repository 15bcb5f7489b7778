"""The worker of the next version: `celery -A tests.harness.next_version_worker worker`."""

from celery import Celery

from apps.contract import topology
from apps.contract.settings import WorkerSettings, load
from apps.worker.celery_app import create_app
from tests.harness.next_version import NEXT_TASKS, NEXT_WORKS, QUEUE

topology.WORK_QUEUES = (*topology.WORK_QUEUES, QUEUE)
app: Celery = create_app(load(WorkerSettings), NEXT_TASKS, NEXT_WORKS)
