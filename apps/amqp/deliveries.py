"""Protects aiormq from message properties that it cannot decode.

aiormq decodes a message's header frame before our code receives the message, and an error there ends the connection.
This transport replaces each header frame with one that aiormq can decode, and which contains the original bytes.
"""

import asyncio
import struct
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from apps.amqp import frames, properties

# Bytes before the properties: class, weight and body size.
_BEFORE_PROPERTIES = 12
_RAW = "properties"


def raw_properties(message: DeliveredMessage) -> bytes:
    """The properties, as raw bytes, of a message that was received through `Transport`."""
    return bytes((message.header.properties.headers or {}).get(_RAW, b""))  # type: ignore[arg-type]


class Transport(TransportFactory):
    """Opens aiormq's transports, and wraps the properties of each received message."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        return _WrappingReader(reader), writer


class _WrappingReader:
    """The methods of StreamReader that aiormq uses to read frames."""

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
    """A content header with the original properties as its only header, and the message id if it is readable.

    aiormq identifies a returned message by its message id.
    """
    raw = payload[_BEFORE_PROPERTIES:]
    entry = bytes([len(_RAW)]) + _RAW.encode() + b"x" + struct.pack(">I", len(raw)) + raw
    table = struct.pack(">I", len(entry)) + entry
    message_id = properties.decode(raw).get("message_id")
    if not isinstance(message_id, str):
        return payload[:_BEFORE_PROPERTIES] + b"\x20\x00" + table
    encoded = message_id.encode()
    return payload[:_BEFORE_PROPERTIES] + b"\x20\x80" + table + bytes([len(encoded)]) + encoded
