"""The worker's connections: attempts to connect touch the liveness file, and a refusal may end the worker.

    an attempt begins  -> the liveness file is touched
    unreachable        -> retried, at most RETRY_MAX_S after the attempt failed
    refused            -> a worker that has not consumed yet exits with a sentence; otherwise it retries

Celery reconnects in the main thread, which blocks the event loop. If attempts did not touch the file, the probe would
consider a worker that waits for its broker hung.
"""

import asyncio
import ssl
import threading
from typing import Any

import kombu
from amqp.exceptions import AccessRefused, NotAllowed, NotFound  # type: ignore[import-untyped]
from billiard.process import current_process

from apps import startup
from apps.contract import states
from apps.contract.settings import WorkerSettings
from apps.health import HealthFiles

# kombu's default delays grow to 30 s. An attempt may take 40 s if no DNS server answers (4 names from the pod's search
# list, two tries of 5 s each): the sum must stay below `health.OLD_S`.
RETRY_MAX_S = 10
# A wrong password or a missing permission; a virtual host that does not exist or that the user may not enter; a queue
# that does not exist.
REFUSALS = (AccessRefused, NotAllowed, NotFound)


class Connection(kombu.Connection):  # type: ignore[misc]  # kombu ships no types
    """A connection to the broker that maintains the worker's health files."""

    health: HealthFiles
    _name: str
    """The current host as in its URL: kombu replaces localhost by 127.0.0.1, which a certificate may lack."""

    def _init_params(self, hostname: str, **others: Any) -> None:
        super()._init_params(hostname, **others)
        self._name = hostname

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, interval_max=RETRY_MAX_S, **kwargs)

    def _establish_connection(self) -> Any:
        if _in_main_loop():  # connections of other threads and processes say nothing about the main loop
            self.health.alive()
        if self.transport_cls == "amqps":
            # Use the host of this attempt. Celery verifies the certificate but not the host name, and does not use TLS
            # at all for the second of several hosts.
            self.ssl = {"server_hostname": self._name, "cert_reqs": ssl.CERT_REQUIRED}
        try:
            return super()._establish_connection()
        except (*REFUSALS, ssl.SSLError) as exc:
            if isinstance(exc, ssl.SSLError) and startup.tls_failure(exc) is None:
                raise
            refused = startup.broker_refused(self.hostname, exc)
            if _in_main_loop() and not self.health.has_been_ready:
                raise SystemExit(str(refused)) from None
            raise ConnectionRefusedError(str(refused)) from exc  # kombu and Celery retry this error


def _in_main_loop() -> bool:
    return threading.current_thread() is threading.main_thread() and current_process().name == "MainProcess"


def connection_to_broker(health: HealthFiles) -> type[Connection]:
    """The class of Celery's connections to the broker."""
    return type("Connection", (Connection,), {"health": health})


def check_redis(settings: WorkerSettings, health: HealthFiles) -> None:
    """Exit with a sentence if Redis refuses the credentials. Called once: later, only the pool uses Redis.

    Touches the liveness file like an attempt to connect: if no DNS server answers, the check takes 45 s.
    """
    health.alive()
    url = settings.celery_result_backend.get_secret_value()
    commands = (("EVAL", "return 1", 1, states.key("none")), ("SUBSCRIBE", states.CANCEL_CHANNEL))
    try:
        asyncio.run(startup.check_redis(url, *commands))
    except startup.Refused as exc:
        raise SystemExit(str(exc)) from None
