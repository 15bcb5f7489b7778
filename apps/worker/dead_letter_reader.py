"""Reads messages of `dead` and `dead.parked`, whatever they contain, for the recorder and the commands."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiormq.abc import DeliveredMessage
from pamqp import encode

from apps.amqp.deliveries import raw_properties
from apps.amqp.properties import decode
from apps.contract import failures, message
from apps.contract.failures import FAILURE_HEADER
from apps.contract.message import Raw

# A frame has 128 KiB; the rest is for headers that the broker may add.
_HEADERS_MAX_BYTES = 96 * 1024
# A longer id is not one of ours, and must not become a Redis key.
_ID_MAX_CHARS = 255


class DeadLetter(NamedTuple):
    """A dead letter: the original message, and its failure."""

    properties: bytes
    """The raw bytes."""
    headers: dict[Any, Any]
    """The readable headers of `properties`."""
    body: bytes
    failure: dict[str, str]
    kept: bool
    """It was wrapped by `message.raw` before."""

    @property
    def malformed(self) -> bool:
        """Whether the message cannot be read."""
        return self.failure["type"] == failures.MALFORMED

    def text(self, name: str) -> str | None:
        """A header if it is a string of at most 255 characters, else None."""
        value = self.headers.get(name)
        return value if isinstance(value, str) and len(value) <= _ID_MAX_CHARS else None

    def copy(self) -> Raw:
        """The copy to park, wrapped by `message.raw` if pamqp cannot write its headers, or if they exceed a frame."""
        headers = self.headers | {FAILURE_HEADER: json.dumps(self.failure)}
        if self.malformed or not _can_be_written(headers):
            return message.raw(self.properties, self.body, self.failure)
        return Raw(self.body, headers)


def read(delivered: DeliveredMessage) -> DeadLetter:
    """Read a message that was received through `apps.amqp.deliveries`."""
    properties, body = raw_properties(delivered), bytes(delivered.body)
    headers = _headers(properties)
    kept = message.raw_properties(headers, body)
    if kept is not None:
        body = body[len(kept) :] if message.RAW_SIZE_HEADER in headers else body
        return DeadLetter(kept, _headers(kept), body, failures.of_dead_letter(headers), kept=True)
    reason = message.unreadable_because(headers) or _unreadable_body(headers, body)
    failure = failures.malformed(reason) if reason else failures.of_dead_letter(headers)
    return DeadLetter(properties, headers, body, failure, kept=False)


def _headers(properties: bytes) -> dict[Any, Any]:
    headers = decode(properties).get("headers")
    return headers if isinstance(headers, dict) else {}


def _unreadable_body(headers: Mapping[Any, Any], body: bytes) -> str | None:
    return message.unreadable_body_because(body) if message.is_known_form(headers) else None


def _can_be_written(headers: dict[Any, Any]) -> bool:
    try:
        return len(encode.field_table(headers)) <= _HEADERS_MAX_BYTES
    except Exception:  # noqa: BLE001 - pamqp raises various errors for types and sizes that it cannot write
        return False
