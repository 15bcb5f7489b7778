"""Which messages the worker holds: none waits here behind a long task while another worker is idle.

    subscribed  --a message waited for a tick, or no place got free for one-->  pulling: unsubscribe, nack what waits
        ^ the queues are empty, or the tasks are short                             |
        `--------------------- a place is free: basic.get, the queues in turn <----'

AMQP's prefetch count is per consumer, which means per queue: a worker with one process and two queues may hold two
messages, and the second waits for the end of the first. Quorum queues have no prefetch count for a whole channel. While
tasks are short, the second message is an advantage (the next task is already here), so the worker stays subscribed and
pays nothing for this module but a timer. While they are long, it takes one message for each free place, by basic.get.

A message is handed back by basic.nack, which returns it to the head of its queue. RabbitMQ 3.10 counts that against the
delivery limit (4.3 does not), so a message that has been delivered often already is kept (HAND_BACK_MAX).
"""

import itertools
import logging
from collections import deque
from typing import Any

import kombu
from amqp import spec  # type: ignore[import-untyped]
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from apps.contract import topology
from apps.worker import metrics

log = logging.getLogger(__name__)

# A message that two ticks in a row find waiting is handed back: it waits from one to two ticks. Shorter ticks would
# hand back more messages of tasks that are about to start.
TICK_S = 0.1
# Half of the delivery limit is left for workers that are lost.
HAND_BACK_MAX = topology.DELIVERY_LIMIT // 2
# So many messages may wait to be given up or returned before no more are taken one by one: they hold no place, and the
# broker, which bounds them while the worker is subscribed, may refuse their copies for hours. Each has up to 16 MiB.
GIVEN_UP_MAX = 8
# How long tasks must be short before the worker subscribes again while its queues are not empty.
SHORT_TICKS = 10


class TaskConsumer(kombu.Consumer):  # type: ignore[misc]  # kombu ships no types
    """Celery's consumer of its queues, with calls that do not wait for the broker's answer.

    A wait would stop the event loop, heartbeats included, for as long as the broker is silent.
    """

    def subscribe(self, prefetch: int) -> None:
        """Consume from all queues, with at most so many unacked messages of each."""
        self.channel.send_method(spec.Basic.Qos, "lBb", (0, prefetch, False))
        for queue in self._queues.values():
            # a new tag each time: RabbitMQ before 3.12 may stop delivering to a tag that is used again
            self._basic_consume(queue, nowait=True)

    def unsubscribe(self) -> None:
        """End the subscriptions. What the broker has sent by then still arrives."""
        for tag in self._active_tags.values():
            self.channel.send_method(spec.Basic.Cancel, "sb", (tag, False))
        self._active_tags.clear()

    def get(self, queue: str) -> None:
        """Ask for one message of a queue; the answer is `on_get_ok` or `on_get_empty`."""
        self.channel.send_method(spec.Basic.Get, "Bsb", (0, queue, False))

    def answer_gets(self, on_get_ok: Any, on_get_empty: Any) -> None:
        """Call these with a message that arrived, and where the queue was empty."""
        channel = self.channel

        def on_message(*answer: Any) -> None:
            on_get_ok(channel._on_get_ok(*answer))  # noqa: SLF001 - amqp has no call that does not wait

        channel._callbacks[spec.Basic.GetOk] = on_message  # noqa: SLF001
        channel._callbacks[spec.Basic.GetEmpty] = lambda *_: on_get_empty()  # noqa: SLF001

    def receive_got(self, message: Any) -> None:
        """Handle a message as if it had been delivered."""
        self._receive_callback(message)

    def nack(self, delivery_tag: int) -> None:
        """Return a message to the head of its queue. RabbitMQ 4.3 counts a reject against the limit, a nack not."""
        self.channel.send_method(spec.Basic.Nack, "Lbb", (delivery_tag, False, True))


class Prefetch(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Decides when the worker is subscribed; all in the thread of its event loop.

    A place is a process or a thread of the pool.
    """

    requires = (Tasks,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.prefetch = self
        self._c = c
        self._draining = False
        self._timer: Any = None
        self.limited = False
        """Whether fewer messages are asked for than places may get free: each end of a task must then be noticed."""

    def start(self, c: Any) -> None:
        """Called at each connection to the broker; Celery's event loop then subscribes."""
        self._consumer: TaskConsumer = c.task_consumer
        self._consumer.answer_gets(self._on_get_ok, self._on_get_empty)
        self._names = deque(queue.name for queue in self._consumer.queues)
        self._full = self._credit = c.initial_prefetch_count
        self._asked = self._scheduled = False
        self._empty = 0
        self._waiting: set[Any] = set()
        self._started = -1
        self._short = _Short(len(self._names) * c.prefetch_multiplier)
        self.limited = False
        self._timer = c.timer.call_repeatedly(TICK_S, self._tick)

    def stop(self, c: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Called at each loss of the connection, and at the end."""
        if self._timer is not None:
            self._timer.cancel()

    def drain(self) -> None:
        """Take no more messages, and hand back those whose tasks have not started."""
        self._draining = self.limited = True
        self._consumer.unsubscribe()
        self._hand_back(self._not_started())

    def place_is_free(self) -> None:
        """Fill it soon; called where `limited` is set, in any thread."""
        if not self._scheduled:
            self._scheduled = True
            self._c.call_soon(self._fill)

    def _tick(self) -> None:
        waiting = set(self._not_started())
        late = waiting if self._draining else waiting & self._waiting
        self._waiting = waiting
        started, self._started = self._started, state.all_total_count[0]
        if late or (self._free() <= 0 and started == self._started):
            self._pull()
        self._hand_back(late)
        if not self._draining and self._consumer_is_unsubscribed():
            if self._short.tick(self._c.pool.num_processes):
                self._subscribe(self._full)
            else:
                self._fill()

    def _pull(self) -> None:
        """Take messages one by one from now on."""
        self.limited = True
        self._consumer.unsubscribe()

    def _fill(self) -> None:
        """Ask for a message if a place is free for it. Gets are answered one after the other."""
        self._scheduled = False
        free = self._free()
        if self._draining or self._asked or free <= 0 or self._c.app.rejections.pending >= GIVEN_UP_MAX:
            return
        if not self._consumer_is_unsubscribed():
            if free * self._c.prefetch_multiplier <= self._credit:
                return
            self._consumer.unsubscribe()
        self._empty = 0
        self._get()

    def _get(self) -> None:
        self._asked = True
        self._consumer.get(self._names[0])
        self._names.rotate(-1)  # whatever the answer: no queue waits for another one to be empty

    def _on_get_ok(self, message: Any) -> None:
        self._asked = False
        if self._draining:
            self._consumer.nack(message.delivery_tag)
            return
        self._short.count += 1
        self._consumer.receive_got(message)
        self._fill()

    def _on_get_empty(self) -> None:
        self._asked = False
        self._empty += 1
        free = self._free()
        if self._draining or free <= 0:
            return
        if self._empty < len(self._names):
            self._get()
        else:
            self._subscribe(min(self._full, free * self._c.prefetch_multiplier))

    def _subscribe(self, prefetch: int) -> None:
        self._credit = prefetch
        self.limited = prefetch < self._full
        self._consumer.subscribe(prefetch)

    def _consumer_is_unsubscribed(self) -> bool:
        return not self._consumer.consuming_from(self._names[0])

    def _free(self) -> int:
        """Places without a message."""
        return int(self._c.pool.num_processes) - len(state.reserved_requests)

    def _hand_back(self, requests: Any) -> None:
        for request in requests:
            if request.delivery_count < HAND_BACK_MAX and request.withdraw():
                self._consumer.nack(request.message.delivery_tag)
                log.debug("handed back", extra={"fields": {"deliveries": request.delivery_count}})
                metrics.HANDED_BACK.labels(request.task.spec.queue).inc()  # a retry has a routing key of its own

    @staticmethod
    def _not_started() -> list[Any]:
        while True:
            try:
                return [request for request in state.reserved_requests if request.time_start is None]
            except RuntimeError:  # a thread of the pool changed the set meanwhile
                continue


class _Short:
    """Tells whether tasks are so short that a message which waits for them is late in no case."""

    def __init__(self, messages: int) -> None:
        # at this rate as many as are held for a place start within half of a tick
        self._rate = 2 * messages
        self._ticks = itertools.count(1)
        self.count = 0

    def tick(self, places: int) -> bool:
        if next(self._ticks) % SHORT_TICKS:
            return False
        short = self.count >= self._rate * SHORT_TICKS * places
        self.count = 0
        return short
