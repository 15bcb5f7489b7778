"""The worker with the tasks of the chaos runs: `celery -A tests.chaos.worker worker`."""

from celery import Celery

from apps.contract.settings import WorkerSettings, load
from apps.worker.celery_app import create_app
from tests.chaos.tasks import TASKS, WORKS
from tests.chaos.weakened import obey_orders, weaken_worker

app: Celery = create_app(load(WorkerSettings), TASKS, WORKS)
weaken_worker(app)
obey_orders()
