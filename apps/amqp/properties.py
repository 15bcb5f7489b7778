"""Decodes a message's properties without raising errors, whatever the publisher sent.

py-amqp and pamqp raise for text that is not UTF-8, times after the year 9999 and deep tables. This ends the connection,
and the broker redelivers the message for ever. This module returns bytes or `Unread` for such a value.

flags (2) | content type | content encoding | headers | ...        Sources: AMQP 0-9-1, section 4.2.6.1, and RabbitMQ's
errata for the types of a table's values.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

# Nesting of tables: RabbitMQ's x-death has three levels. A header frame can have 26,000, too many for recursion.
DEPTH_MAX = 16
# In the order of the flags' bits, from the highest. s: short string, F: table, B: octet, T: timestamp.
_PROPERTIES = (
    ("content_type", "s"),
    ("content_encoding", "s"),
    ("headers", "F"),
    ("delivery_mode", "B"),
    ("priority", "B"),
    ("correlation_id", "s"),
    ("reply_to", "s"),
    ("expiration", "s"),
    ("message_id", "s"),
    ("timestamp", "T"),
    ("type", "s"),
    ("user_id", "s"),
    ("app_id", "s"),
    ("cluster_id", "s"),
)
_NUMBERS = {
    "b": ">b", "B": ">B", "s": ">h", "U": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q", "f": ">f",
    "d": ">d",
}  # fmt: skip


class Unread(bytes):
    """The raw bytes of a value that cannot be decoded: a table or array too deep, or a time after the year 9999."""


def decode(properties: bytes) -> dict[str, Any]:
    """The message's properties by name; the table of headers is `headers`.

    If the bytes end early or have an unknown type, only the properties before that.
    """
    found: dict[str, Any] = {}
    try:
        (flags,) = struct.unpack_from(">H", properties)
        offset = 2
        for position, (name, kind) in enumerate(_PROPERTIES):
            if flags & 0x8000 >> position:
                found[name], offset = _READ[kind](properties, offset, 0)
    except (struct.error, LookupError):
        pass
    return found


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _short_string(data: bytes, offset: int, _: int) -> tuple[str | bytes, int]:
    end = offset + 1 + data[offset]
    return _text(data[offset + 1 : end]), end


def _sized(data: bytes, offset: int) -> tuple[int, int]:
    """Start and end of a value after its length of four bytes."""
    (length,) = struct.unpack_from(">I", data, offset)
    return offset + 4, offset + 4 + length


def _long_string(data: bytes, offset: int, _: int) -> tuple[str | bytes, int]:
    start, end = _sized(data, offset)
    return _text(data[start:end]), end


def _bytes(data: bytes, offset: int, _: int) -> tuple[bytes, int]:
    start, end = _sized(data, offset)
    return data[start:end], end


def _table(data: bytes, offset: int, depth: int) -> tuple[dict[str | bytes, Any] | Unread, int]:
    start, end = _sized(data, offset)
    if depth > DEPTH_MAX:
        return Unread(data[start:end]), end
    table: dict[str | bytes, Any] = {}
    while start < end:
        name, start = _short_string(data, start, depth)
        table[name], start = _value(data, start, depth + 1)
    return table, end


def _array(data: bytes, offset: int, depth: int) -> tuple[list[Any] | Unread, int]:
    start, end = _sized(data, offset)
    if depth > DEPTH_MAX:
        return Unread(data[start:end]), end
    values = []
    while start < end:
        value, start = _value(data, start, depth + 1)
        values.append(value)
    return values, end


def _value(data: bytes, offset: int, depth: int) -> tuple[Any, int]:
    return _READ_VALUE[chr(data[offset])](data, offset + 1, depth)


def _number(form: str) -> "_Read":
    size = struct.calcsize(form)

    def read(data: bytes, offset: int, _: int) -> tuple[Any, int]:
        return struct.unpack_from(form, data, offset)[0], offset + size

    return read


def _decimal(data: bytes, offset: int, _: int) -> tuple[Decimal, int]:
    scale, digits = struct.unpack_from(">Bi", data, offset)
    return Decimal(digits).scaleb(-scale), offset + 5


def _time(data: bytes, offset: int, _: int) -> tuple[datetime | Unread, int]:
    (seconds,) = struct.unpack_from(">Q", data, offset)
    try:
        return datetime.fromtimestamp(seconds, UTC), offset + 8
    except (OverflowError, ValueError, OSError):
        return Unread(data[offset : offset + 8]), offset + 8


def _bool(data: bytes, offset: int, _: int) -> tuple[bool, int]:
    return bool(data[offset]), offset + 1


def _void(_data: bytes, offset: int, _: int) -> tuple[None, int]:
    return None, offset


_Read = Callable[[bytes, int, int], tuple[Any, int]]
_READ_VALUE: dict[str, _Read] = {letter: _number(form) for letter, form in _NUMBERS.items()} | {
    "t": _bool, "D": _decimal, "S": _long_string, "x": _bytes, "A": _array, "F": _table, "T": _time, "V": _void,
}  # fmt: skip
_READ: dict[str, _Read] = {"s": _short_string, "F": _table, "B": _number(">B"), "T": _time}
