"""Delivers messages that py-amqp cannot decode, with their properties as bytes.

Without this, py-amqp raises between the frames of such a message. This ends the connection, and the broker redelivers
the message.
"""

from collections.abc import Callable
from typing import Any

from amqp import method_framing  # type: ignore[import-untyped]

from apps.amqp import frames, properties

# Bytes before the properties: class, weight and body size.
_BEFORE_PROPERTIES = 12
_NO_PROPERTIES = b"\x00\x00"
RAW = "raw_properties"


def frame_handler(connection: Any, callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], bool]:
    """A replacement for py-amqp's frame handler, for the parameter `frame_handler` of its connection.

    Adds the raw properties to each message as `properties[RAW]`. Removes the header `compression`: kombu would
    decompress a body of any size before our code can check the message.
    """
    headers: dict[int, bytes] = {}

    def on_content(channel: int, method: Any, arguments: Any, content: Any) -> None:
        if content is not None:
            found = content.properties
            found[RAW] = headers.pop(channel)[_BEFORE_PROPERTIES:]
            table = found.get("application_headers")
            if table and "compression" in table:
                del table["compression"]
        callback(channel, method, arguments, content)

    handle = method_framing.frame_handler(connection, on_content)

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        if frame[0] != frames.HEADER:
            return bool(handle(frame))
        kind, channel, payload = frame
        headers[channel] = header = bytes(payload)
        try:
            return bool(handle(frame))
        except Exception:  # any error of py-amqp's decoder
            if channel not in headers:  # the message was decoded: the error is the consumer's
                raise
            return bool(handle((kind, channel, header[:_BEFORE_PROPERTIES] + _NO_PROPERTIES)))

    return on_frame


def decoded(raw: bytes) -> dict[str, Any]:
    """The headers of a message that py-amqp could not decode."""
    table = properties.decode(raw).get("headers")
    return table if isinstance(table, dict) else {}
