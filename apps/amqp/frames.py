"""AMQP frames: splitting received data into frames of the negotiated size, and encoding methods with pamqp.

type (1) | channel (2) | size (4) | payload | 0xCE          Source: AMQP 0-9-1, section 4.2.3
"""

import struct
from typing import NamedTuple

from pamqp import base, frame
from pamqp.header import ContentHeader

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
HEAD = struct.Struct(">BHI")
END = b"\xce"
Method = base.Frame
# Type, channel, size and end marker.
OVERHEAD_BYTES = HEAD.size + len(END)
# RabbitMQ's default; also the largest frame that we accept.
FRAME_MAX_BYTES = 131_072
# The smallest frame size that AMQP allows: a message's headers must fit into it.
FRAME_MIN_BYTES = 4096
# Largest method or content header that the broker may send. RabbitMQ's longest method, Connection.Start, has 500 bytes;
# content headers are our own ones, returned. pamqp takes 3 us for each byte of a table.
CONTROL_MAX_BYTES = FRAME_MIN_BYTES
# Frames handled per turn of the event loop; pamqp takes up to 12 us for each.
FRAMES_MAX = 1000
# The only channel, used for all publishes.
CHANNEL = 1
HEARTBEAT_FRAME = HEAD.pack(HEARTBEAT, 0, 0) + END


class ProtocolError(Exception):
    """The broker violated the protocol."""


class Frame(NamedTuple):
    """A received frame."""

    kind: int
    channel: int
    payload: bytes


class FrameReader:
    """Splits a stream into frames. Buffers at most one frame and the last received data."""

    def __init__(self) -> None:
        self.frame_max_bytes = FRAME_MAX_BYTES
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add data; returns at most FRAMES_MAX complete frames. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= OVERHEAD_BYTES and len(frames) < FRAMES_MAX:
            kind, channel, size = HEAD.unpack_from(buffer, start)
            most = self.frame_max_bytes if kind == BODY else min(self.frame_max_bytes, CONTROL_MAX_BYTES)
            if kind not in _KINDS or size + OVERHEAD_BYTES > most:
                raise ProtocolError(f"no frame of AMQP 0-9-1: type {kind}, {size} bytes")
            end = start + HEAD.size + size
            if len(buffer) <= end:
                break
            if buffer[end] != END[0]:
                raise ProtocolError("a frame does not end where it should")
            frames.append(Frame(kind, channel, bytes(buffer[start + HEAD.size : end])))
            start = end + 1
        del buffer[:start]
        return frames


_KINDS = {METHOD, HEADER, BODY, HEARTBEAT}


def method_of(payload: bytes) -> Method:
    """The method in a method frame. Raises ProtocolError."""
    decoded = _decoded(METHOD, payload)
    assert isinstance(decoded, Method)  # noqa: S101 - pamqp: what a frame of this type is
    return decoded


def content_header_of(payload: bytes) -> ContentHeader:
    """The properties and body size in a content header frame. Raises ProtocolError."""
    decoded = _decoded(HEADER, payload)
    assert isinstance(decoded, ContentHeader)  # noqa: S101 - pamqp: what a frame of this type is
    return decoded


def _decoded(kind: int, payload: bytes) -> object:
    try:
        return frame.unmarshal(HEAD.pack(kind, 0, len(payload)) + payload + END)[2]
    except Exception as exc:
        # pamqp does not convert the exceptions of its decoders: ValueError, KeyError, struct.error, RecursionError, ...
        raise ProtocolError(f"a frame that cannot be decoded: {exc!r}") from exc


def encoded(method: Method, channel: int) -> bytes:
    """Encode a method as a frame."""
    return frame.marshal(method, channel)


def body_frames(body: bytes, frame_max_bytes: int) -> bytes:
    """Encode a message's body as one frame, or several if it is large."""
    most = frame_max_bytes - OVERHEAD_BYTES
    parts = (body[start : start + most] for start in range(0, len(body), most))
    return b"".join(HEAD.pack(BODY, CHANNEL, len(part)) + part + END for part in parts)
