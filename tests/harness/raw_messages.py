"""Publishes messages with arbitrary raw properties, valid or not."""

import struct
from collections.abc import Iterable
from typing import Any

import amqp  # type: ignore[import-untyped]
from kombu import Connection

from apps.contract import topology
from tests.harness.simple_tasks import WORK_QUEUE

DEEP = 3_000


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def text(value: bytes) -> bytes:
    """Encode a long string as a value of a table."""
    return b"S" + sized(value)


def array(*values: bytes) -> bytes:
    return b"A" + sized(b"".join(values))


def entries(table: dict[bytes, bytes]) -> bytes:
    """Encode a table's names and values; each value begins with the letter of its type."""
    return b"".join(bytes([len(name)]) + name + value for name, value in table.items())


def table(values: dict[bytes, bytes]) -> bytes:
    return b"F" + sized(entries(values))


def headers(values: dict[bytes, bytes]) -> bytes:
    """Encode properties that contain only these headers."""
    return b"\x20\x00" + sized(entries(values))


def _nested(letter: bytes, before: bytes = b"") -> bytes:
    value = b"V"
    for _ in range(DEEP):
        value = letter + sized(before + value)
    return value


TASK = {
    b"task": text(f"{WORK_QUEUE}:second".encode()), b"id": text(b"a-task"), b"publish_id": text(b"p"),
    b"owner": text(b"tests"), b"retries": b"I\0\0\0\0",
}  # fmt: skip
_VALUES: dict[str, bytes] = {
    "void": b"V",
    "bool": b"t\1",
    "int8": b"b\xff",
    "uint8": b"B\xff",
    "int16": b"s\xff\xff",
    "uint16": b"u\xff\xff",
    "int32": b"I\xff\xff\xff\xff",
    "uint32": b"i\xff\xff\xff\xff",
    "int64": b"l" + b"\xff" * 8,
    "int64-L": b"L" + b"\xff" * 8,
    "float": b"f" + struct.pack(">f", 1.5),
    "double": b"d" + struct.pack(">d", 1e300),
    "decimal": b"D\xff\xff\xff\xff\xff",
    "bytes": b"x" + sized(b"\xff\x00"),
    "not-utf-8": text(b"\xff\xfe"),
    "time": b"T" + struct.pack(">Q", 1_700_000_000),
    "time-after-9999": b"T" + b"\xff" * 8,
    "array": array(b"V", text(b"a")),
    "table": table({b"a": b"V"}),
    "deep-array": _nested(b"A"),
    "deep-table": _nested(b"F", b"\x01a"),
}
# The headers that the worker and the recorder read. Each is tested with a few of the values, `id` with all.
_READ = ("task", "publish_id", "owner", "retries", "eta", "x-death", "timelimit", "form", "returns", "shadow")
_FEW = ("not-utf-8", "time-after-9999", "table", "bytes", "deep-array")
PROPERTIES: dict[str, bytes] = {
    "none": b"\0\0",
    "no-headers": headers({}),
    "x-death-of-text": headers(TASK | {b"x-death": text(b"abc")}),
    "x-death-of-texts": headers(TASK | {b"x-death": array(text(b"abc"))}),
    "x-death-of-arrays": headers(TASK | {b"x-death": array(array())}),
    "x-death-of-numbers": headers(TASK | {b"x-death": array(table({b"reason": b"I\0\0\0\1"}))}),
    "name-not-utf-8": headers(TASK | {b"\xff\xfe": b"V"}),
    "no-name": headers(TASK | {b"": b"V"}),
    "huge": headers(TASK | {b"k%03d" % number: text(b"x" * 1000) for number in range(126)}),
    "content-type-not-utf-8": b"\x80\x00\x02\xff\xfe",
    "content-encoding-not-utf-8": b"\x40\x00\x02\xff\xfe",
    "correlation-id-not-utf-8": b"\x04\x00\x02\xff\xfe",
    "message-id-not-utf-8": b"\x00\x80\x02\xff\xfe",
    "timestamp-after-9999": b"\x00\x40" + b"\xff" * 8,
    "cc": headers(TASK | {b"CC": array(text(b"nowhere"))}),
    "compressed": headers(TASK | {b"compression": text(b"application/x-gzip")}),
    "compressed-by-number": headers(TASK | {b"compression": b"I\0\0\0\1"}),
    "delivery-count-of-text": headers(TASK | {b"x-delivery-count": text(b"abc")}),
    "deep": headers(TASK | {b"any": _VALUES["deep-array"]}),
    **{f"id-of-{kind}": headers(TASK | {b"id": value}) for kind, value in _VALUES.items()},
    **{f"{name}-of-{kind}": headers(TASK | {name.encode(): _VALUES[kind]}) for name in _READ for kind in _FEW},
}


class _Message(amqp.Message):  # type: ignore[misc]
    """A message whose properties are given as bytes."""

    raw = b""

    def _serialize_properties(self) -> bytes:
        return self.raw


def publish(url: str, messages: Iterable[tuple[str, bytes, bytes]]) -> list[bool]:
    """Publish messages of (queue, properties, body). Returns for each whether the broker accepted it.

    The broker refuses malformed tables.
    """
    taken = []
    connection: Any = None
    for queue, properties, body in messages:
        if connection is None:
            connection = Connection(url, transport_options={"confirm_publish": True})
            connection.connect()
        message = _Message(body)
        message.raw = properties
        channel = connection.default_channel
        try:
            channel.basic_publish(message, exchange=topology.EXCHANGE, routing_key=queue, mandatory=True, timeout=20)
        except connection.channel_errors + connection.connection_errors:
            connection.collect()
            connection = None
            taken.append(False)
        else:
            taken.append(True)
    if connection is not None:
        connection.release()
    return taken
