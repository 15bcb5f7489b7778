"""One connection with one channel in confirm mode, from the TCP handshake to its end and the reason for it.

    opening --Start, Tune, OpenOk, Channel.OpenOk, Exchange.DeclareOk, Confirm.SelectOk--> open
       |                                                                                  |   ^
       |                                             Blocked, or the write buffer is full v   | Unblocked, drained
       |                                                                                 held
       `--> ended <-- reset, refused, Close of connection or channel, silence, no AMQP ----'

Publishes of one turn of the event loop are sent with one write: a write for each would cost a tenth of the rate.
"""

import asyncio
import logging
import ssl
import struct
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pamqp.commands import Basic, Channel, Confirm, Exchange
from pamqp.commands import Connection as Peer
from pamqp.header import ProtocolHeader

from apps.amqp import frames
from apps.amqp.address import Address
from apps.amqp.confirms import CONFIRMED, QUEUE_FULL, Confirms, Future
from apps.amqp.frames import CHANNEL, FRAMES_MAX, Frame, FrameReader, Method, ProtocolError
from apps.amqp.template import template
from apps.contract import topology
from apps.contract.message import TaskMessage

log = logging.getLogger(__name__)

CLOSE_DEADLINE_S = 1.0
# The broker sends at least two frames per heartbeat: after two silent heartbeats the connection ends.
SILENT_HEARTBEATS = 2
# Write after about twenty messages of usual size within one turn: the broker then starts while more are encoded.
UNSENT_MAX_BYTES = 16 * 1024
# Reply codes for a wrong password or a missing permission (403 ACCESS_REFUSED), and for a virtual host that does not
# exist or that the user may not enter (530 NOT_ALLOWED).
REFUSALS = frozenset({403, 530})
# Also ask for Connection.Blocked, and for Connection.Close with a reason after a refused login.
_CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True} | {
    "authentication_failure_close": True
}
_ON_CHANNEL = (frames.METHOD, CHANNEL)
_ACK = struct.pack(">I", Basic.Ack.index)
_ACK_PAYLOAD = struct.Struct(">4xQB")

M = TypeVar("M", bound=Method)


class Ended(Exception):
    """The connection has ended or could not be opened. The message is the reason given by the side that ended it."""


class Refused(Ended):
    """The broker refuses the login, or the user lacks a permission."""


class Connection(asyncio.Protocol):
    """AMQP over one transport. Calls `changed` after every event that may resolve or release a waiting publish."""

    def __init__(self, heartbeat_s: int, changed: Callable[[], None]) -> None:
        self.confirms = Confirms()
        self.blocked = False
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = self.loop.create_future()
        self.received_s = 0.0
        self._changed = changed
        self._heartbeat_s = heartbeat_s
        self._silent_beats = 0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._paused = False
        self._read_held = False
        self._answers: dict[type[Method], asyncio.Future[Any]] = {}
        self._returning = False
        self._returning_bytes = 0

    # For the publisher

    @classmethod
    async def open(cls, address: Address, heartbeat_s: int, changed: Callable[[], None]) -> "Connection":
        """Connect and log in. Raises Ended, or OSError if the host is unreachable."""
        context = ssl.create_default_context() if address.tls else None
        self = cls(heartbeat_s, changed)
        await self.loop.create_connection(lambda: self, address.host, address.port, ssl=context)
        try:
            await self._log_in(address)
        except BaseException:
            self._end("given up")
            raise
        return self

    @property
    def held(self) -> bool:
        """Whether a message sent now would only wait in this process's memory."""
        return self._paused or self.blocked

    def encoded(self, message: TaskMessage) -> bytes:
        """The frames of a persistent and mandatory message. Raises if a name cannot be encoded."""
        return template(message.task, message.routing_key).frames(message, self._reader.frame_max_bytes)

    def send(self, publish_id: str, encoded: bytes, future: Future, due_s: float) -> None:
        """Send an encoded message; the future gets its outcome. Nothing may fail after the tag is assigned."""
        self.confirms.sent(publish_id, future, due_s)
        self._write(encoded)

    def give_up(self, reason: str) -> None:
        """End the connection without Connection.Close."""
        self._end(reason)

    async def ping(self) -> None:
        """Make a round trip through the channel, which also detects a missing exchange. Raises Ended."""
        await self._call(Exchange.Declare(exchange=topology.EXCHANGE, passive=True), Exchange.DeclareOk, CHANNEL)

    async def close(self) -> None:
        """Send Connection.Close, wait for the answer, and end."""
        if not self.ended.done():
            try:
                async with asyncio.timeout(CLOSE_DEADLINE_S):
                    await self._call(Peer.Close(200, "", 0, 0), Peer.CloseOk)
            except (Ended, TimeoutError):
                log.debug("no goodbye from the broker")
        self._end("closed by us")

    # Callbacks of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(repr(exc) if exc else "closed by the broker")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._changed()

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        self.received_s = self.loop.time()
        self._silent_beats = 0
        self._read(data)

    # Frames

    def _read(self, data: bytes) -> None:
        """Handle frames, at most FRAMES_MAX per turn of the event loop; receive no more data until all are handled."""
        if self.ended.done():
            return
        try:
            found = self._reader.feed(data)
            for frame in found:
                payload = frame.payload
                if frame[:2] == _ON_CHANNEL and payload[:4] == _ACK and not self._returning:
                    self._on_ack(payload)
                else:
                    self._on_frame(frame)
        except ProtocolError as exc:
            self._end(f"protocol error: {exc}")
        else:
            if len(found) == FRAMES_MAX:
                self._hold_reading()
            elif self._read_held:
                self._read_held = False
                cast("asyncio.Transport", self._transport).resume_reading()
        self._changed()

    def _hold_reading(self) -> None:
        if not self._read_held:
            self._read_held = True
            cast("asyncio.Transport", self._transport).pause_reading()
        self.loop.call_soon(self._read, b"")

    def _on_frame(self, frame: Frame) -> None:
        if self.ended.done() or frame.kind == frames.HEARTBEAT:
            return
        if frame.channel not in {0, CHANNEL}:
            raise ProtocolError(f"a frame for channel {frame.channel}")
        if frame.kind == frames.METHOD and not self._returning:
            self._on_method(frames.method_of(frame.payload))
        elif frame.kind == frames.HEADER and self._returning and not self._returning_bytes:
            header = frames.content_header_of(frame.payload)
            self.confirms.returned(header.properties.message_id)
            self._on_returned_bytes(header.body_size)
        elif frame.kind == frames.BODY and 0 < len(frame.payload) <= self._returning_bytes:
            self._on_returned_bytes(-len(frame.payload))
        else:
            raise ProtocolError(f"a frame of type {frame.kind} out of its order")

    def _on_ack(self, payload: bytes) -> None:
        """Decode an ack without pamqp, which takes ten times as long: nearly every frame is an ack."""
        if len(payload) != _ACK_PAYLOAD.size:
            raise ProtocolError("an ack of another length")
        tag, bits = _ACK_PAYLOAD.unpack(payload)
        self.confirms.answered(tag, CONFIRMED, multiple=bool(bits & 1))

    def _on_returned_bytes(self, change: int) -> None:
        """Count the body bytes of a returned message; the body itself is discarded."""
        self._returning_bytes += change
        self._returning = self._returning_bytes > 0

    def _on_method(self, method: Method) -> None:
        match method:
            case Basic.Nack():
                self.confirms.answered(method.delivery_tag, QUEUE_FULL, multiple=method.multiple)
            case Basic.Return():
                self._returning = True
            case Peer.Blocked() | Peer.Unblocked():
                blocked = isinstance(method, Peer.Blocked)
                if blocked != self.blocked:
                    log.warning("the broker takes no messages" if blocked else "the broker takes messages again")
                self.blocked = blocked
            case Peer.Close():
                self._write(frames.encoded(Peer.CloseOk(), 0))
                self._end_closed(method)
            case Channel.Close():  # no exchange or permission: the broker discards all later publishes unanswered
                self._write(frames.encoded(Peer.Close(200, "", 0, 0), 0))
                self._end_closed(method)
            case _:
                answer = self._answers.pop(type(method), None)
                if answer is None:
                    raise ProtocolError(f"{method.name}, which was not asked for")
                if not answer.done():
                    answer.set_result(method)

    async def _call(self, method: Method | None, answer: type[M], channel: int = 0) -> M:
        """Send a method and wait for its answer; one call at a time per type of answer. Raises Ended."""
        self._raise_if_ended()
        self._answers[answer] = future = self.loop.create_future()
        if method is not None:
            self._write(frames.encoded(method, channel))
        found: M = await future
        return found

    def _write(self, data: bytes) -> None:
        if not self._unsent:
            self.loop.call_soon(self._flush)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes > UNSENT_MAX_BYTES:  # the transport then reports whether it has room
            self._flush()

    def _flush(self) -> None:
        if self._unsent and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._unsent_bytes = 0

    # Login, heartbeats and end

    async def _log_in(self, address: Address) -> None:
        self._write(ProtocolHeader().marshal())
        start = await self._call(None, Peer.Start)
        if "PLAIN" not in start.mechanisms.split():
            raise Ended("the broker takes no user and password (PLAIN)")
        properties: dict[str, Any] = {"product": "sluice-api", "capabilities": _CAPABILITIES}
        secret = f"\0{address.user}\0{address.password}"
        tune = await self._call(Peer.StartOk(properties, "PLAIN", secret, "en_US"), Peer.Tune)
        # 0 means "no limit" for both: use our own limits
        frame_max_bytes = min(tune.frame_max or frames.FRAME_MAX_BYTES, frames.FRAME_MAX_BYTES)
        if frame_max_bytes < frames.FRAME_MIN_BYTES:
            raise Ended(f"the broker takes frames of {frame_max_bytes} bytes only")
        heartbeat_s = min(tune.heartbeat or self._heartbeat_s, self._heartbeat_s)
        self._write(frames.encoded(Peer.TuneOk(tune.channel_max, frame_max_bytes, heartbeat_s), 0))
        await self._call(Peer.Open(address.vhost), Peer.OpenOk)
        self._reader.frame_max_bytes = frame_max_bytes
        await self._call(Channel.Open(), Channel.OpenOk, CHANNEL)
        await self.ping()
        await self._call(Confirm.Select(), Confirm.SelectOk, CHANNEL)
        self._raise_if_ended()  # the same read may have contained a Close
        self._beat(heartbeat_s)

    def _raise_if_ended(self) -> None:
        if self.ended.done():
            ended = self.ended.result()
            raise type(ended)(*ended.args)

    def _beat(self, heartbeat_s: float) -> None:
        # count beats instead of seconds: a process that was itself suspended could not receive
        if self._silent_beats >= 2 * SILENT_HEARTBEATS:
            self._end(f"silent for {SILENT_HEARTBEATS} heartbeats of {heartbeat_s} s")
            return
        self._silent_beats += 1
        self._write(frames.HEARTBEAT_FRAME)
        self._heartbeat = self.loop.call_later(heartbeat_s / 2, self._beat, heartbeat_s)

    def _end_closed(self, method: Peer.Close | Channel.Close) -> None:
        kind = Refused if method.reply_code in REFUSALS else Ended
        self._end(f"{method.reply_code} {method.reply_text}", kind)

    def _end(self, reason: str, kind: type[Ended] = Ended) -> None:
        """End the connection, once. All open publishes and calls get their outcome."""
        if self.ended.done():
            return
        self.ended.set_result(kind(reason))
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(kind(reason))
        self.confirms.lost()
        if self._transport is not None:
            self._flush()
            self._transport.close()
            # a peer that does not read the last bytes must not keep the socket open
            self.loop.call_later(CLOSE_DEADLINE_S, self._transport.abort)
        self._changed()
