"""Frames of the worker's connection: a message that py-amqp cannot decode is delivered, with its properties as bytes.

py-amqp raises in the middle of its frames, which ends the connection, and the broker delivers the message again.
"""

from collections.abc import Callable
from typing import Any

from amqp import method_framing  # type: ignore[import-untyped]

from apps.amqp import frames, properties

# Class, weight and the body's size, before the properties.
_BEFORE_PROPERTIES = 12
_NO_PROPERTIES = b"\x00\x00"
RAW = "raw_properties"


def frame_handler(connection: Any, callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], bool]:
    """As py-amqp's own, for its connection's parameter `frame_handler`.

    Each message has `properties[RAW]`: its properties as they came, and kombu's header `compression` is taken out of
    the headers, as kombu would decompress a body of any size before anybody looked at the message.
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
        except Exception:  # of struct, text, numbers, recursion: whatever its decoder meets
            if channel not in headers:  # it was decoded, and handed on: the error is the consumer's
                raise
            return bool(handle((kind, channel, header[:_BEFORE_PROPERTIES] + _NO_PROPERTIES)))

    return on_frame


def decoded(raw: bytes) -> dict[str, Any]:
    """The headers of a message that py-amqp could not decode."""
    table = properties.decode(raw).get("headers")
    return table if isinstance(table, dict) else {}
