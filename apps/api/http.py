"""uvicorn's HTTP protocol with six changes: `uvicorn --http apps.api.http:Protocol`.

Head and body of an answer leave in one write. uvicorn writes them one after the other, and each is a system call that
wakes the client: a tenth of what an accepted task costs.

A client that takes nothing of its answer loses its connection. uvicorn would wait for ever, and the request would keep
what it holds, such as a large result.

What is received is parsed in parts, one in each step of the event loop, and no further while requests wait behind the
one that is answered. uvicorn would parse all of it: 14,000 small requests in a row took 0.12 s. A head has a bound.

The head and the body of a request have to arrive within some seconds of its first byte. uvicorn would wait for ever,
and so it would for the first byte of a connection.

An idle connection is closed by a timer of the connection. uvicorn starts and cancels a timer for each request, which
takes 2% of the CPU time of an accepted post.

What is no HTTP request is answered with a problem document.

A request to upgrade, to WebSocket or HTTP/2, is answered as if it had not asked for that (RFC 9110, 7.8). uvicorn would
drop its body, which Java's HttpClient sends with the first request of each connection.
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

# For a quarter of what uvicorn lets a client be behind with, and longer than a mobile network is silent.
STALLED_S = 10.0
# From the first byte of a request to the end of its head, and to the end of its body. A head is one or two packets; a
# body of 1 MiB takes 30 s at 280 kbit/s. Behind NGINX, which reads a request before it forwards it, both take
# milliseconds.
HEAD_S = 10.0
BODY_S = 30.0
# Parsed in one step of the event loop: 900 of the smallest requests there are, which take 8 ms.
STEP_BYTES = 16 * 1024
# Of the head of a request, until it is complete; NGINX hands on 32 KiB at most (large_client_header_buffers).
HEAD_MAX_BYTES = 64 * 1024
# A copy of more costs more than the system call that it saves.
JOINED_MAX_BYTES = 16 * 1024


class Protocol(HttpToolsProtocol):
    """As uvicorn's own, on a transport that joins writes, and that clients have to read from."""

    _stalled: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    """When the last answer was complete, or the connection was made."""
    _upgrading = False
    """Whether the last complete head asks to upgrade."""
    _body_arriving = False
    """Whether the last complete head has a body that is not complete."""
    _began_s = 0.0
    _overdue: asyncio.TimerHandle | None = None
    _unread = b""
    """What was received and is not parsed."""
    _read_held = False
    """Nothing is received until `_unread` is parsed, and until no request waits behind another one."""
    _complete: list[tuple[bytes, bytes]] | None = None
    """The headers of the last complete head; uvicorn makes a new list where a request begins."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
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
        """As uvicorn's own, in parts."""
        if len(data) <= STEP_BYTES and not self._unread:  # as nearly all
            self._receive(data)
        else:
            self._unread += data
            self._hold()
            self._read_on()
        if self.pipeline:
            self._hold()

    def on_response_complete(self) -> None:
        """As uvicorn's own, without a timer for each request: see `_check_idle`."""
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
        """Called by uvicorn when it has room for more."""
        if self._read_held:
            self.loop.call_soon(self._read_on)
        else:
            self._joined.receive_on()

    def _read_on(self) -> None:
        """Parse the next part, or receive on; called again where that has to wait."""
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
        """As uvicorn's own, except for requests to upgrade, and for those that do not arrive at once."""
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
        # a CONNECT asks for a tunnel in any case; it is refused as any other method that a path does not have
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
        """Whether a request has begun that is not complete."""
        return self._body_arriving or self.headers is not self._complete

    def _check_idle(self) -> None:
        """Close the connection if it has been idle for `timeout_keep_alive`; otherwise check again when it may be."""
        busy = self._arriving or (self.cycle is not None and not self.cycle.response_complete)
        idle_s = 0.0 if busy else self.loop.time() - self._idle_since_s
        if idle_s < self.timeout_keep_alive:
            self._idle = self.loop.call_later(self.timeout_keep_alive - idle_s, self._check_idle)
        else:
            self.transport.close()

    def _arrives(self) -> None:
        """Begin to measure; nothing is done for a request that arrives in one piece, as nearly all do."""
        if self._overdue is None and not self.transport.is_closing():
            self._began_s = self.loop.time()
            self._overdue = self.loop.call_later(HEAD_S, self._check_arrival)

    def _arrived(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _check_arrival(self) -> None:
        self._overdue = None
        if self.flow.read_paused or self._read_held:  # it is us who do not read on
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
        if begun or (part == "body" and not answering):  # the answer is on its way, or was sent
            self.transport.close()
        else:
            self._end(errors.too_slow(part, limit_s))

    def _parse(self, data: bytes) -> None:
        """Parse data; the head of a request to upgrade a second time, without that header.

        Raises HttpParserError, also for a head that is too long.
        """
        received = len(data)
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                data = self._head_without_upgrade() + data[exc.args[0] :] if self._upgrading else b""
                # as uvicorn makes it; the old one reads nothing more where the client also asked to close
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
        """A problem document, as for any other error; uvicorn's own answer is text."""
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
    """A transport that holds a write back for the next one, at most until the event loop's turn is over."""

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
        if self._lost:  # uvicorn goes on with the requests that a client had sent before it left
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
        """Let data be received again."""
        if not self._lost and not self._transport.is_closing():
            self._transport.resume_reading()

    def discard(self) -> None:
        """Drop what is held and what is written from now on: the client has gone, and to write to it would raise."""
        self._lost = True
        self._held = b""

    def _flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""
