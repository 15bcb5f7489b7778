"""The worker fetches single messages of a queue that it is not subscribed to."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from apps.worker.prefetch import GIVEN_UP_MAX, Prefetch


class Queue:
    """A queue that is never empty, and a consumer that is not subscribed to it and can read none of its messages."""

    queues = (SimpleNamespace(name="celery"),)

    def __init__(self) -> None:
        self.app = SimpleNamespace(rejections=SimpleNamespace(pending=0))
        self.pool = SimpleNamespace(num_processes=1)
        self.timer = SimpleNamespace(call_repeatedly=self._set_tick)
        self.initial_prefetch_count = self.prefetch_multiplier = 1
        self.task_consumer = self
        self.asked = False
        self.taken = 0

    def _set_tick(self, _every_s: float, tick: Callable[[], None]) -> None:
        self.tick = tick

    def answer_gets(self, on_get_ok: Callable[[Any], None], _on_get_empty: Callable[[], None]) -> None:
        self.answer = on_get_ok

    def consuming_from(self, _queue: str) -> bool:
        return False

    def get(self, _queue: str) -> None:
        self.asked = True

    def receive_got(self, _message: Any) -> None:
        self.app.rejections.pending += 1

    def answer_all(self) -> None:
        """Answer the requests for a message, up to 100."""
        while self.asked and self.taken < 100:
            self.asked = False
            self.taken += 1
            self.answer(object())


def test_no_message_is_fetched_while_many_wait_for_their_rejection() -> None:
    """They occupy no slot: without this bound, a whole queue would be loaded into memory during a broker outage."""
    queue = Queue()
    Prefetch(queue).start(queue)
    queue.tick()
    queue.answer_all()
    assert queue.taken == GIVEN_UP_MAX
    queue.app.rejections.pending = 0
    queue.tick()
    queue.answer_all()
    assert queue.taken == 2 * GIVEN_UP_MAX
