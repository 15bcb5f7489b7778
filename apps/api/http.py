"""uvicorn's HTTP protocol with these changes: `uvicorn --http apps.api.http:Protocol`.

Head and body of an answer are sent with one write. uvicorn uses two, and each is a system call that wakes the client:
this takes a tenth of the CPU time of an accepted task.

A client that does not read its answer loses its connection. uvicorn would wait for ever, and the request would keep its
resources, such as a large result.

Received data is parsed in parts, one per turn of the event loop, and parsing stops while pipelined requests are
waiting. uvicorn parses everything: 14,000 small pipelined requests took 0.12 s. The size of a head is limited.

The head and the body of a request must arrive within a few seconds of its first byte. uvicorn would wait for ever, and
also for the first byte of a connection.

Idle connections are closed by one timer per connection. uvicorn starts and cancels a timer for each request, which
takes 2% of the CPU time of an accepted post.

An invalid HTTP request is answered with a problem document.

Requests to upgrade to WebSocket or HTTP/2 are answered as if they had no such header (RFC 9110, 7.8). uvicorn would
drop the body, and Java's HttpClient sends such a request first on each connection.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from apps.api import errors, metrics

log = logging.getLogger(__name__)

# Time to read a quarter of uvicorn's write buffer; longer than usual pauses of mobile networks.
STALLED_S = 10.0
# Time from the first byte of a request to the end of its head, and of its body. A head is one or two packets; a body of
# 1 MiB takes 30 s at 280 kbit/s. NGINX buffers requests before it forwards them: behind it, both take milliseconds.
HEAD_S = 10.0
BODY_S = 30.0
# Bytes parsed per turn of the event loop: 900 requests of minimal size, which take 8 ms.
STEP_BYTES = 16 * 1024
# Largest head of a request; NGINX forwards at most 32 KiB (large_client_header_buffers).
HEAD_MAX_BYTES = 64 * 1024
# Copying more bytes costs more than the saved system call.
JOINED_MAX_BYTES = 16 * 1024


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with the changes above."""

    _stalled: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    """The time of the last complete answer, or of the connection."""
    _upgrading = False
    """Whether the last complete head requests an upgrade."""
    _body_arriving = False
    """Whether the last complete head has a body that is not complete."""
    _began_s = 0.0
    _overdue: asyncio.TimerHandle | None = None
    _unread = b""
    """Received data that is not parsed yet."""
    _read_held = False
    """Whether receiving is paused, until `_unread` is parsed and no pipelined request is waiting."""
    _complete: list[tuple[bytes, bytes]] | None = None
    """The headers of the last complete head. uvicorn creates a new list for each request."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        self._joined = Joined(transport, self.loop, self._resume)
        super().connection_made(cast("asyncio.Transport", self._joined))
        self._idle_since_s = self.loop.time()
        self._idle = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._joined.discard()
        self._unread = b""
        self._clear()
        self._arrived()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Like uvicorn's method, but parses in parts."""
        if len(data) <= STEP_BYTES and not self._unread:  # the usual case
            self._receive(data)
        else:
            self._unread += data
            self._hold()
            self._read_on()
        if self.pipeline:
            self._hold()

    def on_response_complete(self) -> None:
        """Like uvicorn's method, but without a timer per request: see `_check_idle`."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since_s = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._read_held:
            self.loop.call_soon(self._read_on)

    def _hold(self) -> None:
        if not self._read_held:
            self._read_held = True
            self._joined.pause_reading()

    def _resume(self) -> None:
        """Called by uvicorn when it can accept more data."""
        if self._read_held:
            self.loop.call_soon(self._read_on)
        else:
            self._joined.receive_on()

    def _read_on(self) -> None:
        """Parse the next part, or resume receiving. Called again if it must wait."""
        if self.pipeline or self.flow.read_paused or self.transport.is_closing() or not self._read_held:
            return
        if self._unread:
            part, self._unread = self._unread[:STEP_BYTES], self._unread[STEP_BYTES:]
            self._receive(part)
            self.loop.call_soon(self._read_on)
        else:
            self._read_held = False
            self._joined.receive_on()

    def _receive(self, data: bytes) -> None:
        """Like uvicorn's method, except for upgrades, and for requests that arrive in several pieces."""
        try:
            self._parse(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
        if self._arriving:
            self._arrives()

    def on_headers_complete(self) -> None:
        self._complete = self.headers
        self._head_bytes = 0
        # CONNECT always counts as an upgrade; it is refused like any other unsupported method
        self._upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._upgrading:
            self._body_arriving = True
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._upgrading:
            self._body_arriving = False
            if self._overdue is not None:
                self._arrived()
            super().on_message_complete()

    @property
    def _arriving(self) -> bool:
        """Whether a request is only partly received."""
        return self._body_arriving or self.headers is not self._complete

    def _check_idle(self) -> None:
        """Close the connection if it has been idle for `timeout_keep_alive`; otherwise schedule the next check."""
        busy = self._arriving or (self.cycle is not None and not self.cycle.response_complete)
        idle_s = 0.0 if busy else self.loop.time() - self._idle_since_s
        if idle_s < self.timeout_keep_alive:
            self._idle = self.loop.call_later(self.timeout_keep_alive - idle_s, self._check_idle)
        else:
            self.transport.close()

    def _arrives(self) -> None:
        """Start the timer of a request. Not called for a request that arrives in one piece, as nearly all do."""
        if self._overdue is None and not self.transport.is_closing():
            self._began_s = self.loop.time()
            self._overdue = self.loop.call_later(HEAD_S, self._check_arrival)

    def _arrived(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _check_arrival(self) -> None:
        self._overdue = None
        if self.flow.read_paused or self._read_held:  # we have paused reading
            self._arrives()
            return
        part, limit_s = ("body", BODY_S) if self.headers is self._complete else ("head", HEAD_S)
        left_s = self._began_s + limit_s - self.loop.time()
        if left_s > 0:
            self._overdue = self.loop.call_later(left_s, self._check_arrival)
            return
        metrics.SLOW_REQUESTS.labels(part).inc()
        answering = self.cycle is not None and not self.cycle.response_complete
        begun = answering and (part == "head" or self.cycle.response_started or bool(self.pipeline))
        if begun or (part == "body" and not answering):  # an answer was begun or sent
            self.transport.close()
        else:
            self._end(errors.too_slow(part, limit_s))

    def _parse(self, data: bytes) -> None:
        """Parse data. The head of a request to upgrade is parsed again without that header.

        Raises HttpParserError, also if a head is too long.
        """
        received = len(data)
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                data = self._head_without_upgrade() + data[exc.args[0] :] if self._upgrading else b""
                # created as in uvicorn; the old parser stops if the client also requested to close
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                break
        if self.headers is not self._complete:
            self._head_bytes += received
            if self._head_bytes > HEAD_MAX_BYTES:
                raise httptools.HttpParserError(f"a head has {HEAD_MAX_BYTES} bytes at most")

    def _head_without_upgrade(self) -> bytes:
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        others = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([first, *others, b"", b""])

    def pause_writing(self) -> None:
        super().pause_writing()
        self._clear()
        self._stalled = self.loop.call_later(STALLED_S, self._abort)

    def resume_writing(self) -> None:
        self._clear()
        super().resume_writing()

    def _clear(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _abort(self) -> None:
        metrics.STALLED.inc()
        log.warning("client takes nothing of its answer", extra={"fields": {"stalled_s": STALLED_S}})
        self._joined.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem document; uvicorn would send plain text."""
        self._end(errors.malformed(msg))

    def _end(self, problem: errors.Problem) -> None:
        """Answer with a problem, and close the connection."""
        answer = errors.response(problem)
        first = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        lines = [first, *(b": ".join(header) for header in headers), b"", bytes(answer.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


class Joined:
    """A transport that joins a write with the next one of the same turn of the event loop."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        resume: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self.resume_reading = resume or self.receive_on
        self._held = b""
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._lost:  # uvicorn still handles pipelined requests of a client that has disconnected
            return
        if len(data) > JOINED_MAX_BYTES:
            self._flush()
            self._transport.write(data)
        elif self._held:
            self._transport.write(self._held + data)
            self._held = b""
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def receive_on(self) -> None:
        """Resume receiving."""
        if not self._lost and not self._transport.is_closing():
            self._transport.resume_reading()

    def discard(self) -> None:
        """Drop held and future data: the client has disconnected, and writing would raise."""
        self._lost = True
        self._held = b""

    def _flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""
