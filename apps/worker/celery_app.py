"""The Celery app: `celery -A apps.worker.celery_app worker`. It reads its settings from the environment."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from billiard import util
from celery import Celery, signals
from celery._state import _set_task_join_will_block
from kombu import Exchange, Queue
from prometheus_client import start_http_server

from apps import logs
from apps.contract import topology
from apps.contract.model_checks import require_pure
from apps.contract.queues import require_queues, require_selectable
from apps.contract.settings import WorkerSettings, load
from apps.contract.tasks import Registry
from apps.health import HealthFiles
from apps.tasks import TASKS, work_modules
from apps.worker import frame_handler, prefork
from apps.worker.connection_attempts import check_redis, connection_to_broker
from apps.worker.consumer import lifecycle
from apps.worker.disabled_celery_api import App
from apps.worker.functions import Work, by_task, works_of
from apps.worker.prefetch import Prefetch, TaskConsumer
from apps.worker.task import ContractTask, run


def create_app(
    settings: WorkerSettings, registry: Registry = TASKS, works: Iterable[Work[Any, Any]] | None = None
) -> Celery:
    """Create the app for these tasks; `works` are their functions, by default those of apps/tasks.

    Raises SystemExit if a task has no function, an undeclared queue, a missing or invalid setting, or an input that the
    worker could read differently than the API.
    """
    logs.configure(settings.log_level)
    require_pure(registry)
    require_queues(registry)
    app = App("sluice", task_cls=ContractTask, set_as_current=False)
    # The setting `result_backend` cannot be used: CELERY_RESULT_BACKEND in the environment overrides it.
    app.redis_url = settings.celery_result_backend.get_secret_value()
    app.backend_cls = "apps.worker.backend:Backend+" + app.redis_url
    app.conf.update(_configuration(settings))
    for work in by_task(registry, works_of(*work_modules()) if works is None else works).values():
        app.task(
            run,
            name=work.spec.name,
            bind=True,
            shared=False,  # only in this app
            spec=work.spec,
            function=staticmethod(work.function),
            function_settings=work.loaded_settings(),
            retry_on=work.retry_on,
            settings=settings,
            limits=app.limits,
        )
    health = HealthFiles(settings.liveness_file, settings.readiness_file)
    app.amqp.Connection = connection_to_broker(health)
    app.amqp.Consumer = TaskConsumer
    app.steps["consumer"].add(Prefetch)
    app.steps["consumer"].add(lifecycle(settings, health))
    signals.setup_logging.connect(lambda **_: logs.configure(settings.log_level), weak=False)
    signals.celeryd_init.connect(_on_celeryd_init, weak=False)
    signals.worker_init.connect(lambda **_: _on_worker_init(settings, health), weak=False)
    # sent only in the processes of the pool
    signals.worker_process_init.connect(lambda **_: _on_process_init(app), weak=False)
    return app


def _configuration(settings: WorkerSettings) -> dict[str, Any]:
    exchange = Exchange(topology.EXCHANGE, type="topic", no_declare=True)
    queues = [
        # no_declare: the definitions create the queues; the worker's user has no permission to
        Queue(name, exchange, routing_key=name, queue_arguments=topology.QUEUE_ARGUMENTS, no_declare=True)
        for name in topology.WORK_QUEUES
    ]
    redis_url = settings.celery_result_backend.get_secret_value()
    return {
        "broker_url": settings.celery_broker_url.get_secret_value(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": settings.broker_heartbeat_s,
        # a retry is a publish, which must be confirmed
        "broker_transport_options": {"confirm_publish": True, "frame_handler": frame_handler.frame_handler},
        "result_backend_always_retry": True,
        # 0.1 s to 2 s: store results soon after Redis has recovered
        "result_backend_base_sleep_between_retries_ms": 100,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_thread_safe": True,  # otherwise each thread of the pool has its own connection
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 3,
        "redis_backend_health_check_interval": 30,
        # Celery requires it for rediss://; redis-py then also verifies the host name
        "redis_backend_use_ssl": {"ssl_cert_reqs": "required"} if redis_url.startswith("rediss:") else None,
        "sluice_record_ttl_s": settings.record_ttl_s,
        "sluice_result_ttl_s": settings.result_ttl_s,
        "sluice_return_max_s": settings.return_max_s,
        "task_queues": queues,
        "task_default_queue": topology.DEFAULT_QUEUE,
        "task_default_exchange": topology.EXCHANGE,
        "task_default_exchange_type": "topic",
        "task_default_routing_key": topology.DEFAULT_QUEUE,
        "task_default_queue_type": "quorum",
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # After a lost connection, the broker redelivers the task. Kill its process, so the task does not run twice at
        # the same time; a thread cannot be killed.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Its queue is exclusive: until a cluster has detected a lost connection, the worker cannot redeclare the queue,
        # and Celery exits. Cancellation uses Redis instead (apps/worker/cancel.py).
        "worker_enable_remote_control": False,
        "worker_consumer": "apps.worker.consumer:Consumer",
        "worker_pool": f"apps.worker.{settings.worker_pool}:TaskPool",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": settings.worker_prefetch,
        "worker_max_memory_per_child": settings.worker_max_memory_mib * 1024,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # a dead child sends no more results; if a result was stored nevertheless, `begin` skips the task
        "worker_lost_wait": 1.0,
        # children start slowly on a busy machine; with a short time-out, Celery would restart them for ever
        "worker_proc_alive_timeout": 60.0,
    }


_QUIETER = {
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.ERROR,  # task.py raises Reject for dead letters, which is not an error
    "celery.worker.request": logging.CRITICAL,
}


def _on_celeryd_init(options: dict[str, Any], **_: object) -> None:
    """Called before Celery selects queues: it raises a traceback for an unknown queue in -Q, and ignores it in -X."""
    require_selectable(options.get("queues") or (), "-Q")
    require_selectable(options.get("exclude_queues") or (), "-X")


def _on_worker_init(settings: WorkerSettings, health: HealthFiles) -> None:
    health.unready()  # a killed container leaves the file in the pod's /tmp
    _let_others_run()
    os.register_at_fork(after_in_child=_default_signals)
    if multiprocessing.get_start_method(allow_none=True) is None:
        # A fork copies locks that other threads hold, such as those of a task's executor, and the new process may wait
        # for them for ever. This is Python's default from 3.14 on.
        multiprocessing.set_start_method("forkserver")
    # their lines about a task lack the request id; our own lines have it
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)
    util.get_logger().propagate = True  # otherwise billiard prints plain text
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    check_redis(settings, health)


def _on_process_init(app: App) -> None:
    prefork.enter_pool()
    app.limits.enter_pool()
    # see `task_join_will_block` in apps/worker/threads.py
    _set_task_join_will_block(blocks=False)


def _default_signals() -> None:
    """Called in each process that is forked from the worker or its pool, including forks by tasks.

    The worker's handlers do not end a process: multiprocessing, which stops its processes by SIGTERM, would hang.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _let_others_run() -> None:
    """Use SCHED_BATCH (Linux: sched(7)): a worker that wakes up does not preempt running processes.

    A delay of API, Redis or broker affects every client; a delay of a task only its own. It also saves context
    switches.
    """
    with suppress(AttributeError, OSError):  # not available on other systems; a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@cache
def _app() -> Celery:
    return create_app(load(WorkerSettings))


def __getattr__(name: str) -> Celery:
    # Celery reads a module attribute. Create the app here, not at import: importing must not read the environment.
    if name in {"app", "celery"}:
        return _app()
    raise AttributeError(name)
