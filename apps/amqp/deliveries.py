"""Deliveries whose properties a client library cannot turn into an error, for aiormq and for py-amqp.

Both decode a message's header frame before our code has the message, and what they cannot decode ends the connection.
Here each header frame is handed to them in a form that they can decode, with the bytes as they came beside it.
"""

import asyncio
import struct
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from apps.amqp import frames, properties

# Class, weight and the body's size, before the properties.
_BEFORE_PROPERTIES = 12
_RAW = "properties"


def raw_properties(message: DeliveredMessage) -> bytes:
    """The properties of a message that came by `Transport`, as they are on the wire."""
    return bytes((message.header.properties.headers or {}).get(_RAW, b""))  # type: ignore[arg-type]


class Transport(TransportFactory):
    """Opens what aiormq opens, and wraps the properties of each message that comes in."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        return _WrappingReader(reader), writer


class _WrappingReader:
    """The part of a StreamReader that aiormq reads frames with."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._frame = b""

    def at_eof(self) -> bool:
        return not self._frame and self._reader.at_eof()

    async def read(self) -> bytes:
        return await self._reader.read()

    async def readexactly(self, size: int) -> bytes:
        if not self._frame:
            self._frame = await self._next()
        data, self._frame = self._frame[:size], self._frame[size:]
        if len(data) < size:
            raise asyncio.IncompleteReadError(data, size)
        return data

    async def _next(self) -> bytes:
        head = await self._reader.readexactly(frames.HEAD.size)
        kind, channel, size = frames.HEAD.unpack(head)
        rest = await self._reader.readexactly(size + len(frames.END))
        if kind != frames.HEADER:
            return head + rest
        payload = _wrapped(rest[:size])
        return frames.HEAD.pack(kind, channel, len(payload)) + payload + frames.END


def _wrapped(payload: bytes) -> bytes:
    """A content header whose one header is the properties that came; aiormq finds a returned message by its id."""
    raw = payload[_BEFORE_PROPERTIES:]
    entry = bytes([len(_RAW)]) + _RAW.encode() + b"x" + struct.pack(">I", len(raw)) + raw
    table = struct.pack(">I", len(entry)) + entry
    message_id = properties.decode(raw).get("message_id")
    if not isinstance(message_id, str):
        return payload[:_BEFORE_PROPERTIES] + b"\x20\x00" + table
    encoded = message_id.encode()
    return payload[:_BEFORE_PROPERTIES] + b"\x20\x80" + table + bytes([len(encoded)]) + encoded
