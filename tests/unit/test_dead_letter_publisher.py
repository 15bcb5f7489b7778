"""Messages that a worker rejects while the broker confirms nothing: each is rejected at its own deadline."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from apps.contract import failures
from apps.worker import dead_letter_publisher
from apps.worker.dead_letter_publisher import PUBLISH_DEADLINE_S, Rejection, Rejections
from apps.worker.version_returns import Copy
from tests.harness.system import until

ADDED_AT_S = 100.0


class Broker:
    """A broker that confirms nothing until it is `back`. Its clock is also that of the code under test."""

    def __init__(self) -> None:
        self.now_s = ADDED_AT_S
        self.begun = threading.Event()
        self.back = False
        self.attempts = 0
        self.acked_s: list[float] = []
        self.rejected_s: list[float] = []

    def publish(self, _: Copy, within_s: float) -> None:
        self.begun.wait()
        self.attempts += 1
        if not self.back:
            self.now_s += within_s
            raise TimeoutError

    def give_up(self, rejections: Rejections, reject: Callable[[], None] | None) -> None:
        connection = SimpleNamespace(connected=True)
        message = SimpleNamespace(channel=SimpleNamespace(connection=connection))
        copy = Copy("exchange", "key", b"", {})
        ack = self._note(self.acked_s)
        rejections.add(Rejection(message, failures.malformed("a test"), ack, reject, copy))

    def _note(self, times_s: list[float]) -> Callable[[], None]:
        return lambda: times_s.append(self.now_s)

    @property
    def reject(self) -> Callable[[], None]:
        return self._note(self.rejected_s)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    clock = SimpleNamespace(monotonic=lambda: broker.now_s, sleep=lambda _: time.sleep(0.001))
    monkeypatch.setattr(dead_letter_publisher, "time", clock)
    monkeypatch.setattr(dead_letter_publisher._Publisher, "publish", lambda _, *arguments: broker.publish(*arguments))  # noqa: SLF001
    return broker


def test_deadline_counts_from_the_request_to_reject(broker: Broker) -> None:
    rejections = Rejections(app=None)
    for _ in range(5):
        broker.give_up(rejections, broker.reject)
    broker.begun.set()
    until(lambda: not rejections.pending)
    assert broker.rejected_s == [ADDED_AT_S + PUBLISH_DEADLINE_S] * 5
    assert broker.attempts == 1


def test_rejection_waits_for_at_most_one_copy_without_a_deadline(broker: Broker) -> None:
    rejections = Rejections(app=None)
    for reject in (None, None, None, broker.reject, broker.reject):
        broker.give_up(rejections, reject)
    broker.begun.set()
    until(lambda: len(broker.rejected_s) == 2)
    assert broker.rejected_s == [ADDED_AT_S + PUBLISH_DEADLINE_S] * 2
    broker.back = True
    until(lambda: not rejections.pending)
    assert len(broker.acked_s) == 3
