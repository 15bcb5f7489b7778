"""Outcomes of a channel's publishes. Each publish has a tag, and the broker's answers refer to tags.

    sent --return----> returned --any event below--> refused: unroutable
      |----ack-------> confirmed
      |----nack------> refused: queue-full
      |----deadline--> unknown; the tag stays open until the broker answers: this bounds the open publishes
      `----lost------> unknown

No I/O. Tags count from 1 in the order of the publishes. An answer for a tag that is not open, or was not sent, violates
AMQP: the connection must end.
"""

import asyncio
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from apps.amqp.frames import ProtocolError


@dataclass(frozen=True)
class Outcome:
    """The outcome of a publish, and its reason."""

    kind: Literal["confirmed", "refused", "unknown"]
    reason: str = ""


CONFIRMED = Outcome("confirmed")
UNROUTABLE = Outcome("refused", "unroutable")
QUEUE_FULL = Outcome("refused", "queue-full")
OVERDUE = Outcome("unknown", "deadline")
LOST = Outcome("unknown", "connection-lost")

Future = asyncio.Future[Outcome]


class _Publish:
    """A publish that the broker has not answered."""

    __slots__ = ("due_s", "future", "publish_id", "returned")

    def __init__(self, publish_id: str, future: Future, due_s: float) -> None:
        self.publish_id = publish_id
        self.future = future
        self.due_s = due_s
        self.returned = False


class Confirms:
    """The unanswered publishes of one channel, in the order of their tags."""

    def __init__(self) -> None:
        self._open: dict[int, _Publish] = {}
        self._last_tag = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def asked(self) -> list[Future]:
        """The outcomes that still have a waiter."""
        return [publish.future for publish in self._open.values() if not publish.future.done()]

    def sent(self, publish_id: str, future: Future, due_s: float) -> None:
        """Add a publish; `due_s` must not be earlier than that of the previous one."""
        self._last_tag += 1
        self._open[self._last_tag] = _Publish(publish_id, future, due_s)

    def answered(self, tag: int, outcome: Outcome, *, multiple: bool) -> None:
        """The broker acks or nacks one publish, or all up to it. Raises ProtocolError.

        Tag 0 ("all open") is refused: it would include publishes that are not written yet. No broker sends it.
        """
        if not multiple:
            publish = self._open.pop(tag, None)
            if publish is None:
                raise ProtocolError(f"an answer to publish {tag}, which is not open")
            _resolve(publish, outcome)
            return
        if not 0 < tag <= self._last_tag:
            raise ProtocolError(f"an answer to publish {tag}, which was not sent")
        for each in list(takewhile(tag.__ge__, self._open)):
            _resolve(self._open.pop(each), outcome)

    def returned(self, publish_id: str | None) -> None:
        """The broker returns a message; its ack follows. Raises ProtocolError."""
        for publish in self._open.values():
            if publish.publish_id == publish_id:
                publish.returned = True
                return
        raise ProtocolError("a message came back that is not open")

    def expire(self, now_s: float) -> float | None:
        """Resolve the publishes whose deadline has passed. Returns for how long the oldest one is overdue, or None."""
        for publish in self._open.values():
            if publish.due_s > now_s:
                break
            _resolve(publish, OVERDUE)
        first = next(iter(self._open.values()), None)
        return now_s - first.due_s if first is not None and first.due_s <= now_s else None

    def lost(self) -> None:
        """The connection has ended: open publishes get the outcome LOST."""
        publishes, self._open = self._open, {}
        for publish in publishes.values():
            _resolve(publish, LOST)


def _resolve(publish: _Publish, outcome: Outcome) -> None:
    if not publish.future.done():  # its waiter has left, or its deadline has passed
        publish.future.set_result(UNROUTABLE if publish.returned else outcome)
