"""The worker's attempts to reach its broker in an outage of an hour, by Celery's own loop with a simulated clock."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import kombu.utils.functional
import pytest
from kombu.transport import pyamqp

from apps import startup
from apps.contract.settings import WorkerSettings
from apps.health import OLD_S, HealthFiles
from apps.worker.celery_app import create_app
from apps.worker.connection_attempts import check_redis

HOUR_S = 3600.0


class Over(Exception):
    """The outage is over."""


class Clock:
    """A clock that advances when Celery sleeps, and during each attempt."""

    def __init__(self, attempt_s: float) -> None:
        self.now_s = 0.0
        self.touches_s: list[float] = []
        self.attempts = 0
        self._attempt_s = attempt_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def touch(self) -> None:
        self.touches_s.append(self.now_s)

    def attempt(self) -> None:
        self.attempts += 1
        self.now_s += self._attempt_s
        raise ConnectionRefusedError

    def check(self) -> None:
        if self.now_s > HOUR_S:
            raise Over


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Clock]:
    def last(url: str, attempt_s: float) -> Clock:
        clock = Clock(attempt_s)
        monkeypatch.setattr(kombu.utils.functional, "sleep", clock.sleep)
        monkeypatch.setattr(pyamqp.Transport, "establish_connection", clock.attempt)
        monkeypatch.setattr(HealthFiles, "alive", clock.touch)
        settings = WorkerSettings(celery_broker_url=url, celery_result_backend="redis://:long-and-secret@redis/0")
        connection = create_app(settings).connection_for_read()
        with pytest.raises(Over):  # called as by Celery's consumer
            connection.ensure_connection(lambda *_: None, None, callback=clock.check)
        return clock

    return last


# Refused immediately; silent in the handshake (4 * 4 s); DNS does not answer (4 names, two tries of 5 s each).
@pytest.mark.parametrize("attempt_s", [0.0, 16.0, 40.0])
@pytest.mark.parametrize("hosts", [1, 3])
def test_liveness_file_never_gets_old_during_an_outage_of_an_hour(
    outage: Callable[[str, float], Clock], attempt_s: float, hosts: int
) -> None:
    url = ";".join(f"amqp://worker:long-and-secret@broker-{number}/" for number in range(hosts))
    clock = outage(url, attempt_s)
    assert len(clock.touches_s) == clock.attempts > HOUR_S / OLD_S
    assert max(after - before for before, after in pairwise([*clock.touches_s, clock.now_s])) < OLD_S


def test_liveness_file_is_touched_before_the_first_request_to_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without DNS, this request takes most of the startup probe's 60 s, before any attempt to reach the broker."""
    file, seen = tmp_path / "alive", []

    async def asked(*_: object) -> None:
        seen.append(file.exists())

    monkeypatch.setattr(startup, "check_redis", asked)
    settings = WorkerSettings(celery_broker_url="amqp://w:long-and-secret@b/", celery_result_backend="redis://redis/0")
    check_redis(settings, HealthFiles(str(file), None))
    assert seen == [True]
