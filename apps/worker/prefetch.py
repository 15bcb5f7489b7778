"""Prefetching of messages: no message waits in this worker behind a long task while another worker is idle.

    subscribed  --a message waited for a tick, or no slot got free in a tick->  pulling: unsubscribe, nack the waiting
        ^ the queues are empty, or the tasks are short                             |
        `---------------------- a slot is free: basic.get, the queues in turn <----'

AMQP's prefetch count applies per consumer, and so per queue: a worker with one process and two queues can hold two
messages, and the second waits for the end of the first. Quorum queues do not support a prefetch count per channel.
While tasks are short, the second message is an advantage, as the next task is already here: the worker stays
subscribed, and this module costs only a timer. While tasks are long, the worker requests a message per free slot by
basic.get.

A message is returned to the head of its queue by basic.nack. RabbitMQ 3.10 counts this against the delivery limit (4.3
does not), so a message that has already been delivered often is kept (HAND_BACK_MAX).
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
from apps.worker import task_metrics

log = logging.getLogger(__name__)

# A message that is waiting at two successive ticks is returned, after one to two ticks. Shorter ticks would return more
# messages of tasks that are about to start.
TICK_S = 0.1
# Half of the delivery limit is reserved for lost workers.
HAND_BACK_MAX = topology.DELIVERY_LIMIT // 2
# With this number of pending rejections, the worker requests no more messages. Rejections occupy no slot, and the
# broker may refuse their copies for hours; while the worker is subscribed, the prefetch count bounds them. Each message
# has up to 16 MiB.
GIVEN_UP_MAX = 8
# Ticks for which tasks must be short before the worker subscribes again while its queues are not empty.
SHORT_TICKS = 10


class TaskConsumer(kombu.Consumer):  # type: ignore[misc]  # kombu ships no types
    """Celery's consumer of its queues, with calls that do not wait for the broker's answer.

    Waiting for a silent broker would block the event loop, including heartbeats.
    """

    def subscribe(self, prefetch: int) -> None:
        """Consume from all queues, with at most `prefetch` unacked messages of each."""
        self.channel.send_method(spec.Basic.Qos, "lBb", (0, prefetch, False))
        for queue in self._queues.values():
            # always a new tag: RabbitMQ before 3.12 may stop delivering to a reused tag
            self._basic_consume(queue, nowait=True)

    def unsubscribe(self) -> None:
        """End the subscriptions. Messages that the broker has already sent still arrive."""
        for tag in self._active_tags.values():
            self.channel.send_method(spec.Basic.Cancel, "sb", (tag, False))
        self._active_tags.clear()

    def get(self, queue: str) -> None:
        """Request a message of a queue. The answer calls `on_get_ok` or `on_get_empty`."""
        self.channel.send_method(spec.Basic.Get, "Bsb", (0, queue, False))

    def answer_gets(self, on_get_ok: Any, on_get_empty: Any) -> None:
        """Set the callbacks for a received message, and for an empty queue."""
        channel = self.channel

        def on_message(*answer: Any) -> None:
            on_get_ok(channel._on_get_ok(*answer))  # noqa: SLF001 - amqp has only a blocking call

        channel._callbacks[spec.Basic.GetOk] = on_message  # noqa: SLF001
        channel._callbacks[spec.Basic.GetEmpty] = lambda *_: on_get_empty()  # noqa: SLF001

    def receive_got(self, message: Any) -> None:
        """Handle a message as if it had been delivered."""
        self._receive_callback(message)

    def nack(self, delivery_tag: int) -> None:
        """Return a message to the head of its queue. RabbitMQ 4.3 counts rejects against the limit, but not nacks."""
        self.channel.send_method(spec.Basic.Nack, "Lbb", (delivery_tag, False, True))


class Prefetch(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Decides when the worker is subscribed. Runs in the thread of the event loop.

    A slot is a process or a thread of the pool.
    """

    requires = (Tasks,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        c.prefetch = self
        self._c = c
        self._draining = False
        self._timer: Any = None
        self.limited = False
        """Whether more slots may become free than messages are requested: each end of a task then fills a slot."""

    def start(self, c: Any) -> None:
        """Called at each connection to the broker, before Celery's event loop subscribes."""
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
        """Called when the connection is lost, and at the end."""
        if self._timer is not None:
            self._timer.cancel()

    def drain(self) -> None:
        """Request no more messages, and return those whose tasks have not started."""
        self._draining = self.limited = True
        self._consumer.unsubscribe()
        self._hand_back(self._not_started())

    def place_is_free(self) -> None:
        """Request a message for a free slot soon. Called from any thread if `limited` is set."""
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
        """Unsubscribe, and request messages one by one."""
        self.limited = True
        self._consumer.unsubscribe()

    def _fill(self) -> None:
        """Request a message if a slot is free. Only one request is open at a time."""
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
        self._names.rotate(-1)  # even if it had a message: each queue gets its turn

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
        """The number of slots without a message."""
        return int(self._c.pool.num_processes) - len(state.reserved_requests)

    def _hand_back(self, requests: Any) -> None:
        for request in requests:
            if request.delivery_count < HAND_BACK_MAX and request.withdraw():
                self._consumer.nack(request.message.delivery_tag)
                log.debug("handed back", extra={"fields": {"deliveries": request.delivery_count}})
                task_metrics.HANDED_BACK.labels(request.task.spec.queue).inc()  # a retry has another routing key

    @staticmethod
    def _not_started() -> list[Any]:
        while True:
            try:
                return [request for request in state.reserved_requests if request.time_start is None]
            except RuntimeError:  # a thread of the pool changed the set
                continue


class _Short:
    """Detects tasks that are so short that a waiting message is never late."""

    def __init__(self, messages: int) -> None:
        # at this rate, the messages held for a slot start within half a tick
        self._rate = 2 * messages
        self._ticks = itertools.count(1)
        self.count = 0

    def tick(self, places: int) -> bool:
        if next(self._ticks) % SHORT_TICKS:
            return False
        short = self.count >= self._rate * SHORT_TICKS * places
        self.count = 0
        return short
