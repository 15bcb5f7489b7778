"""A task's result as the JSON text that is stored, and that the API sends as it is: valid, readable and bounded.

    output --pydantic--> bytes --checks--> stored
              `-- lone surrogates, bytes that are not UTF-8, NaN --> escaped or null, encoded again

The check that matters for speed is none: a small result without odd text is encoded once.
"""

import copy
import json
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import pydantic_core
from pydantic import BaseModel

from apps.contract.text import escape_surrogates

# So short, a result has no number of too many digits for Python to read again, and is not too deep for it.
READABLE_CHARACTERS = sys.int_info.str_digits_check_threshold
# The highest limit that a setting or a TaskSpec may give. Redis refuses values of 512 MiB (proto-max-bulk-len) and
# closes the connection, which looks like an outage; an eighth of that is also read within the API's time-out.
CEILING_BYTES = 64 * 1024 * 1024
# What pydantic makes of each surrogate in a key, so that two keys may become one.
_LOSSY = "\ufffd".encode()
# Escapes of surrogates and what Python's json writes for numbers that JSON has not; also found in ordinary text.
_SUSPECT = ("\\ud", "\\uD", "NaN", "Infinity")


# `_escaped` copies these, and their subclasses as these: a subclass may have another constructor.
_COLLECTIONS = (list, tuple, set, frozenset, deque)


class _ConsumedError(Exception):
    """A result has an iterator, which the first attempt to encode it has read, to its end or to an error."""


class ResultTooLarge(Exception):
    """A result has more bytes than are kept."""


def encode(output: BaseModel, max_bytes: int) -> bytes:
    """The result as JSON in UTF-8; NaN and the infinities are null.

    Raises ResultTooLarge, ValueError and RecursionError for what Python could not read again, and pydantic's own error
    for a type that it cannot serialize.
    """
    try:
        encoded = output.__pydantic_serializer__.to_json(output)
        if _LOSSY in encoded:
            with suppress(_ConsumedError):
                encoded = _encode_odd(output)
    except (pydantic_core.PydanticSerializationError, UnicodeError) as exc:
        try:
            encoded = _encode_odd(output)
        except _ConsumedError:
            raise exc from None
    if len(encoded) > max_bytes:
        raise ResultTooLarge(
            f"the result has {len(encoded)} bytes, and {max_bytes} are kept at most"
            " (RESULT_MAX_BYTES, or result_max_bytes of the task's TaskSpec)"
        )
    if len(encoded) > READABLE_CHARACTERS:
        json.loads(encoded)
    if b"NaN" in encoded or b"Infinity" in encoded:  # a model may be configured to write them; JSON has neither
        encoded = pydantic_core.to_json(json.loads(encoded), inf_nan_mode="null")
    return encoded


def readable(encoded: str) -> str:
    """A stored result as JSON that any parser reads.

    For records of older versions, which stored lone surrogates and NaN as they came.
    """
    if not any(suspect in encoded for suspect in _SUSPECT):
        return encoded
    try:
        value = _escaped(json.loads(encoded), with_bytes=False)
    except (ValueError, RecursionError):
        return encoded
    return pydantic_core.to_json(value, inf_nan_mode="null").decode()


def _encode_odd(output: BaseModel) -> bytes:
    """Encode a result that has text or bytes without an encoding. Raises as pydantic does, and _ConsumedError."""
    serializer = output.__pydantic_serializer__
    try:
        plain = serializer.to_python(_escaped(output, with_bytes=False), mode="json", warnings=False)
    except (pydantic_core.PydanticSerializationError, UnicodeError):  # not first: a model may write bytes as base64
        plain = serializer.to_python(_escaped(output, with_bytes=True), mode="json", warnings=False)
    # again: a serializer of the team's own may have made such text
    return pydantic_core.to_json(_escaped(plain, with_bytes=True), inf_nan_mode="null")


def _escaped(value: Any, *, with_bytes: bool) -> Any:  # noqa: PLR0911 - a case for each kind of value
    """A copy in which every string can be encoded, the keys included; `with_bytes`: in which bytes are text, too."""

    def escaped(one: Any) -> Any:
        return _escaped(one, with_bytes=with_bytes)

    if isinstance(value, str):
        return escape_surrogates(value)
    if isinstance(value, bytes | bytearray) and with_bytes:
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {escaped(name): escaped(one) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(escaped, value))
    for collection in _COLLECTIONS:
        if isinstance(value, collection):
            return collection(map(escaped, value))
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return _copy(value, {name: escaped(one) for name, one in _fields(value).items()})
    return _escaped_other(value)


def _escaped_other(value: Any) -> Any:
    if isinstance(value, PurePath):
        return type(value)(escape_surrogates(str(value)))
    if isinstance(value, Iterator):
        raise _ConsumedError
    return value


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return {**vars(value), **(value.__pydantic_extra__ or {})}
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _copy(value: Any, changed: dict[str, Any]) -> Any:
    """Not by the constructor, which would validate it again."""
    copied = copy.copy(value)
    if isinstance(value, BaseModel) and value.__pydantic_extra__:
        extra = {name: changed.pop(name) for name in value.__pydantic_extra__}
        object.__setattr__(copied, "__pydantic_extra__", extra)
    for name, one in changed.items():
        object.__setattr__(copied, name, one)
    return copied
