"""A task's result as JSON text of bounded size, which is stored and which the API sends unchanged.

    output --pydantic--> bytes --checks--> stored
              `-- lone surrogates, bytes that are not UTF-8, NaN --> escaped or null, encoded again

A small result without such values is encoded once and not parsed: results are on the hot path.
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

# Up to this length, a result has no number with more digits, and no deeper nesting, than Python's json can read.
READABLE_CHARACTERS = sys.int_info.str_digits_check_threshold
# The highest limit that a setting or a TaskSpec may set. Redis refuses values of 512 MiB (proto-max-bulk-len) by
# closing the connection, which looks like an outage. An eighth of that can also be read within the API's time-out.
CEILING_BYTES = 64 * 1024 * 1024
# pydantic replaces each surrogate in a key with this character, and two keys may become one.
_LOSSY = "\ufffd".encode()
# Escaped surrogates, and Python's spelling of numbers that JSON does not have. Ordinary text may contain them too.
_SUSPECT = ("\\ud", "\\uD", "NaN", "Infinity")


# `_escaped` copies these. A copy of a subclass has the base type: the subclass may have another constructor.
_COLLECTIONS = (list, tuple, set, frozenset, deque)


class _ConsumedError(Exception):
    """A result contains an iterator, which the first attempt to encode it has consumed."""


class ResultTooLarge(Exception):
    """A result exceeds its size limit."""


def encode(output: BaseModel, max_bytes: int) -> bytes:
    """Encode a result as JSON in UTF-8; NaN and the infinities become null.

    Raises ResultTooLarge, ValueError or RecursionError if Python could not read the result again, and pydantic's error
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
    if b"NaN" in encoded or b"Infinity" in encoded:  # a model's configuration may allow them
        encoded = pydantic_core.to_json(json.loads(encoded), inf_nan_mode="null")
    return encoded


def readable(encoded: str) -> str:
    """A stored result as JSON that any parser can read.

    Earlier versions stored lone surrogates and NaN unchanged.
    """
    if not any(suspect in encoded for suspect in _SUSPECT):
        return encoded
    try:
        value = _escaped(json.loads(encoded), with_bytes=False)
    except (ValueError, RecursionError):
        return encoded
    return pydantic_core.to_json(value, inf_nan_mode="null").decode()


def _encode_odd(output: BaseModel) -> bytes:
    """Encode a result with text or bytes that are not valid UTF-8. Raises pydantic's errors, and _ConsumedError."""
    serializer = output.__pydantic_serializer__
    try:
        plain = serializer.to_python(_escaped(output, with_bytes=False), mode="json", warnings=False)
    except (pydantic_core.PydanticSerializationError, UnicodeError):  # second: a model may encode bytes as base64
        plain = serializer.to_python(_escaped(output, with_bytes=True), mode="json", warnings=False)
    # again: a custom serializer may have returned such text
    return pydantic_core.to_json(_escaped(plain, with_bytes=True), inf_nan_mode="null")


def _escaped(value: Any, *, with_bytes: bool) -> Any:  # noqa: PLR0911 - a case for each kind of value
    """A copy whose strings, including keys, can all be encoded. `with_bytes` also converts bytes to text."""

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
    """Copy an object with changed fields, without its constructor, which would validate it again."""
    copied = copy.copy(value)
    if isinstance(value, BaseModel) and value.__pydantic_extra__:
        extra = {name: changed.pop(name) for name in value.__pydantic_extra__}
        object.__setattr__(copied, "__pydantic_extra__", extra)
    for name, one in changed.items():
        object.__setattr__(copied, name, one)
    return copied
