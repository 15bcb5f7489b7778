"""The worker's connections: each attempt to reach a server is noted for the liveness probe, and a refusal is judged.

    an attempt begins  -> the liveness file is touched
    unreachable        -> tried again, at most RETRY_MAX_S after it was found so
    refused            -> a worker that has not consumed yet ends, with a sentence; another one tries again

Celery reconnects in the main thread, whose event loop stands still meanwhile: without this the file would grow old
in each outage, and a worker that waits for its broker would look like one that hangs.
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

# kombu's own waits grow to 30 s. An attempt itself may take 40 s where no DNS server answers (4 names of a pod's search
# list, each tried twice for 5 s): the sum must stay below `health.OLD_S`.
RETRY_MAX_S = 10
# A wrong password or a missing permission; a virtual host that does not exist or that the user may not enter; a queue
# that does not exist.
REFUSALS = (AccessRefused, NotAllowed, NotFound)


class Connection(kombu.Connection):  # type: ignore[misc]  # kombu ships no types
    """A connection of one worker, whose health files these are."""

    health: HealthFiles
    _name: str
    """The present host as its URL names it; kombu makes 127.0.0.1 of localhost, which no certificate need have."""

    def _init_params(self, hostname: str, **others: Any) -> None:
        super()._init_params(hostname, **others)
        self._name = hostname

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, interval_max=RETRY_MAX_S, **kwargs)

    def _establish_connection(self) -> Any:
        if _in_main_loop():  # other threads and the pool's processes publish, and say nothing of the main loop
            self.health.alive()
        if self.transport_cls == "amqps":
            # Of this attempt's host: Celery would verify the certificate, but not whose it is, and drop TLS altogether
            # for the second of several hosts.
            self.ssl = {"server_hostname": self._name, "cert_reqs": ssl.CERT_REQUIRED}
        try:
            return super()._establish_connection()
        except (*REFUSALS, ssl.SSLError) as exc:
            if isinstance(exc, ssl.SSLError) and startup.tls_failure(exc) is None:
                raise
            refused = startup.broker_refused(self.hostname, exc)
            if _in_main_loop() and not self.health.has_been_ready:
                raise SystemExit(str(refused)) from None
            raise ConnectionRefusedError(str(refused)) from exc  # of the errors that kombu and Celery retry


def _in_main_loop() -> bool:
    return threading.current_thread() is threading.main_thread() and current_process().name == "MainProcess"


def connection_to_broker(health: HealthFiles) -> type[Connection]:
    """The class that Celery makes its connections of."""
    return type("Connection", (Connection,), {"health": health})


def check_redis(settings: WorkerSettings, health: HealthFiles) -> None:
    """End with a sentence where Redis refuses the credentials. Once: later only the pool uses Redis.

    An attempt too: where no DNS server answers, the start waits for the end of each look-up, 45 s in all.
    """
    health.alive()
    url = settings.celery_result_backend.get_secret_value()
    commands = (("EVAL", "return 1", 1, states.key("none")), ("SUBSCRIBE", states.CANCEL_CHANNEL))
    try:
        asyncio.run(startup.check_redis(url, *commands))
    except startup.Refused as exc:
        raise SystemExit(str(exc)) from None
