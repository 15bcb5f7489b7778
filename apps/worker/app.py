"""The Celery app: `celery -A apps.worker.app worker`. Settings come from the environment when it is built."""

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
from apps.contract.purity import require_pure
from apps.contract.queues import require_queues, require_selectable
from apps.contract.settings import WorkerSettings, load
from apps.contract.tasks import Registry
from apps.health import HealthFiles
from apps.tasks import TASKS, work_modules
from apps.worker import frames, prefork
from apps.worker.celery_api import App
from apps.worker.connection import check_redis, connection_to_broker
from apps.worker.consumer import lifecycle
from apps.worker.functions import Work, by_task, works_of
from apps.worker.prefetch import Prefetch, TaskConsumer
from apps.worker.task import ContractTask, run


def create_app(
    settings: WorkerSettings, registry: Registry = TASKS, works: Iterable[Work[Any, Any]] | None = None
) -> Celery:
    """Build the app for these tasks; `works` are their functions, by default those of apps/tasks.

    Raises SystemExit when a task has no function, no queue, a setting that is missing or wrong, or an input that cannot
    be carried from the API.
    """
    logs.configure(settings.log_level)
    require_pure(registry)
    require_queues(registry)
    app = App("sluice", task_cls=ContractTask, set_as_current=False)
    # Not the setting `result_backend`: Celery lets CELERY_RESULT_BACKEND in the environment override it.
    app.redis_url = settings.celery_result_backend.get_secret_value()
    app.backend_cls = "apps.worker.backend:Backend+" + app.redis_url
    app.conf.update(_configuration(settings))
    for work in by_task(registry, works_of(*work_modules()) if works is None else works).values():
        app.task(
            run,
            name=work.spec.name,
            bind=True,
            shared=False,  # of this app alone
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
    # sent in the processes of the pool alone
    signals.worker_process_init.connect(lambda **_: _on_process_init(app), weak=False)
    return app


def _configuration(settings: WorkerSettings) -> dict[str, Any]:
    exchange = Exchange(topology.EXCHANGE, type="topic", no_declare=True)
    queues = [
        # no_declare: the definitions made them; the worker's user may not
        Queue(name, exchange, routing_key=name, queue_arguments=topology.QUEUE_ARGUMENTS, no_declare=True)
        for name in topology.WORK_QUEUES
    ]
    redis_url = settings.celery_result_backend.get_secret_value()
    return {
        "broker_url": settings.celery_broker_url.get_secret_value(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": settings.broker_heartbeat_s,
        # a retry is a publish: it must be confirmed too
        "broker_transport_options": {"confirm_publish": True, "frame_handler": frames.frame_handler},
        "result_backend_always_retry": True,
        # 0.1 s to 2 s: a result is stored soon after Redis is back
        "result_backend_base_sleep_between_retries_ms": 100,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_thread_safe": True,  # else each thread of the pool has a connection of its own
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 3,
        "redis_backend_health_check_interval": 30,
        # Celery refuses rediss:// without it; redis-py then verifies the host name too
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
        # on a lost connection the broker gives the task to another worker: a process is ended, so that it does not run
        # twice at once; a thread cannot be
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # its queue is exclusive: until a cluster has found the end of a lost connection, the same worker may not have
        # it again, and Celery ends the process for it. Cancelling has a channel of its own (apps/worker/cancel.py).
        "worker_enable_remote_control": False,
        "worker_consumer": "apps.worker.consumer:Consumer",
        "worker_pool": f"apps.worker.{settings.worker_pool}:TaskPool",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": settings.worker_prefetch,
        "worker_max_memory_per_child": settings.worker_max_memory_mib * 1024,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # a child that died sends nothing more; were it wrong, `begin` skips what is final
        "worker_lost_wait": 1.0,
        # a busy machine starts children slowly; a child taken for dead too early would be started for ever
        "worker_proc_alive_timeout": 60.0,
    }


_QUIETER = {
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.ERROR,  # for what apps/worker/task.py lets through: a rejected task is no error
    "celery.worker.request": logging.CRITICAL,
}


def _on_celeryd_init(options: dict[str, Any], **_: object) -> None:
    """Called before Celery selects queues: of an unknown one it would make a traceback, or take no notice."""
    require_selectable(options.get("queues") or (), "-Q")
    require_selectable(options.get("exclude_queues") or (), "-X")


def _on_worker_init(settings: WorkerSettings, health: HealthFiles) -> None:
    health.unready()  # a container that was killed left the file; its pod's /tmp outlives it
    _let_others_run()
    os.register_at_fork(after_in_child=_default_signals)
    if multiprocessing.get_start_method(allow_none=True) is None:
        # A fork copies the locks that other threads hold just then, those of a kept executor too, and the new process
        # may wait for them for ever. Python's own default from 3.14 on.
        multiprocessing.set_start_method("forkserver")
    # their lines about a task lack the request id; ours say the same with it
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)
    util.get_logger().propagate = True  # billiard's own, which else prints plain text
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    check_redis(settings, health)


def _on_process_init(app: App) -> None:
    prefork.enter_pool()
    app.limits.enter_pool()
    # as in apps/worker/threads.py
    _set_task_join_will_block(blocks=False)


def _default_signals() -> None:
    """Called in each process that is forked from the worker or its pool, by a task too.

    The worker's handlers end no process: multiprocessing, which ends its own by SIGTERM, would wait for ever.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _let_others_run() -> None:
    """What wakes here waits for what runs on that processor (Linux: sched(7), SCHED_BATCH).

    API, Redis and broker hold up every client, a task only its own. And fewer switches cost less.
    """
    with suppress(AttributeError, OSError):  # another system has no such policy; a sandbox may forbid to ask for it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@cache
def _app() -> Celery:
    return create_app(load(WorkerSettings))


def __getattr__(name: str) -> Celery:
    # Celery looks for a module attribute. Built at that look-up, not at import: importing reads no environment.
    if name in {"app", "celery"}:
        return _app()
    raise AttributeError(name)
