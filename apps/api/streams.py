"""Limits on open event streams, each of which takes memory until its client closes it."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from apps.api import errors, metrics


class Streams:
    """Counts this process's open event streams, per client and in total."""

    def __init__(self, *, per_client_max: int, total_max: int) -> None:
        self._per_client_max = per_client_max
        self._total_max = total_max
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        return self._open.total()

    @contextmanager
    def opened(self, owner: str) -> Iterator[None]:
        """Count a stream for the length of the block. Raises the 429 and 503 problems."""
        if self._open[owner] >= self._per_client_max:
            metrics.STREAMS_REFUSED.labels("client").inc()
            raise errors.too_many_streams(self._per_client_max)
        if self.open >= self._total_max:
            metrics.STREAMS_REFUSED.labels("total").inc()
            raise errors.streams_full()
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class CountedStream(EventStream):
    """A stream of events within the limits. Raises the 429 and 503 problems before the answer has begun.

    The stream is counted around the whole answer, not in its generator: one that never starts runs no `finally`.
    """

    def __init__(self, content: AsyncIterator[bytes], streams: Streams, owner: str, headers: dict[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._about = (streams, owner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams, owner = self._about
        with streams.opened(owner):
            await super().__call__(scope, receive, send)
