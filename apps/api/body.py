"""A request's body: its type, size and complexity, and the inputs in it."""

import json
import logging
from itertools import accumulate
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError, create_model

from apps.api import errors
from apps.api.request_headers import one_header, require_json, require_length
from apps.contract.message import Payload
from apps.contract.tasks import Input, Registry, input_union

log = logging.getLogger(__name__)

BATCH_MAX = 1000
# Errors listed for an invalid input; more would be repetitive.
ERRORS_MAX = 10
# Errors listed for a whole batch; further inputs have one each. This bounds the answer to a few MB.
BATCH_ERRORS_MAX = 1000
# Above this, only the number of errors is reported: pydantic can only list all of them, and 20,000 take 30 ms.
LISTED_MAX = 20_000
# Keys and elements of a body: a document of 1 MiB with ten bytes for each. A model may take 10 us for each of them, for
# example a union of five types none of which matches.
VALUES_MAX = 100_000
# The parser has a limit of 200 levels. A batch adds two levels to an input: its object and its array.
BATCH_LEVELS = 2
DEPTH_MAX = 200 - BATCH_LEVELS
# Limits for parsing on the event loop, which takes a few milliseconds at these limits, even for a union of five types.
# Sending a body to the parser's process takes 0.2 ms.
LIGHT_BYTES = 64 * 1024
LIGHT_VALUES = 500


async def read_json(request: Request, limit_bytes: int) -> bytes:
    """Read the body, with at most the limit in memory. Raises the 400, 413 and 415 problems."""
    require_json(one_header(request, "content-type"))
    require_length(one_header(request, "content-length"), limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise errors.too_large(limit_bytes)
    return bytes(body)


def is_light(body: bytes) -> bool:
    """Whether a body can be parsed on the event loop. Commas and brackets in strings are also counted."""
    if len(body) <= 2 * DEPTH_MAX:  # the usual case; each level needs two brackets
        return True
    if len(body) > LIGHT_BYTES:
        return False
    opened = body.count(b"[") + body.count(b"{")
    return opened <= DEPTH_MAX and body.count(b",") + opened <= LIGHT_VALUES


def require_bounded(body: bytes, depth_max: int) -> None:
    """Scan a body's bytes. Raises the 413 problem if it is too complex to be parsed.

    Keys and elements are counted by the comma or bracket before them, outside of strings. For a body that is not JSON
    the counts are meaningless; the parser refuses it.
    """
    without_escapes = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if without_escapes.count(b'"') > 4 * VALUES_MAX:  # the quotes of VALUES_MAX keys with a string each
        raise errors.too_complex(f"it may have {VALUES_MAX} keys and elements at most")
    outside = b"".join(without_escapes.split(b'"')[::2])
    opened = outside.count(b"[") + outside.count(b"{")
    if outside.count(b",") + opened > VALUES_MAX:
        raise errors.too_complex(f"it may have {VALUES_MAX} keys and elements at most")
    if opened > depth_max and _depth(outside) > depth_max:
        raise errors.too_complex(f"it may have {depth_max} levels of arrays and objects at most")


_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _STEPS.keys())


def _depth(outside: bytes) -> int:
    """The depth of nesting; `outside` is the text outside of strings."""
    return max(accumulate(map(_STEPS.__getitem__, outside.translate(None, _NO_BRACKETS))))


def parse_input(adapter: TypeAdapter[Input], text: bytes | str) -> Payload:
    """Validate an input as JSON text. Raises the 400 problem if it is not JSON, and 422 if it is not a valid input."""
    try:
        task = adapter.validator.validate_json(
            text
        ).task  # not the adapter's method, whose options take a fifth of the time
    except ValidationError as exc:
        raise _problem(exc) from None
    except BaseException as exc:
        # A defect of the model's validator, including sys.exit() and a panic of Rust code. The status 422 means that
        # nothing was accepted, and that a retry cannot help.
        log.exception("validator failed")
        message = f"the model's validator raised {type(exc).__name__}"
        raise errors.invalid([{"loc": [], "msg": message, "type": "validator_failed"}]) from None
    return Payload(task, text if isinstance(text, str) else text.decode())


def batch_model(tasks: Registry) -> type[BaseModel]:
    """The model of a batch. Its schema describes the inputs; `parse_batch` validates them one by one."""
    element: Any = Annotated[input_union(tasks), SkipValidation]
    fields: Any = {"tasks": (list[element], Field(min_length=1, max_length=BATCH_MAX))}
    model: type[BaseModel] = create_model("Batch", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def parse_batch(model: type[BaseModel], adapter: TypeAdapter[Input], body: bytes) -> list[Payload | errors.Problem]:
    """The inputs of a batch, with a problem for each invalid input. Raises like `parse_input`.

    Each input is a slice of the body's text, and is handled exactly as if it had been posted alone.
    """
    try:
        model.model_validate_json(body)
    except ValidationError as exc:
        raise _problem(exc) from None
    told = 0
    parsed: list[Payload | errors.Problem] = []
    for text in elements(body.decode()):
        one = _input_or_problem(adapter, text)
        if isinstance(one, errors.Problem) and (found := one.members.get("errors")):
            del found[max(1, BATCH_ERRORS_MAX - told) :]
            told += len(found)
        parsed.append(one)
    return parsed


def _input_or_problem(adapter: TypeAdapter[Input], text: str) -> Payload | errors.Problem:
    try:
        return parse_input(adapter, text)
    except errors.Problem as problem:
        return problem


# Finds the end of a JSON value in C; the value itself is not used. Numbers are not converted, as Python refuses
# integers of more than 4,300 digits.
_decode = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode


def elements(text: str) -> list[str]:
    """The elements of a valid batch's array, as slices of the text.

    If the key `tasks` is repeated, the last array counts, as in pydantic.
    """
    found: list[str] = []
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        colon = _skip(text, _decode(text, at)[1])
        at = _skip(text, colon + 1)
        if text[at] == "[":
            found, end = _array(text, at)
        else:  # a repeated key: pydantic refuses a batch whose last value is not an array
            end = _decode(text, at)[1]
        at = _skip(text, end, ",")
    return found


def _array(text: str, start: int) -> tuple[list[str], int]:
    """The elements of the array that begins at `start`, and the end of the array."""
    found = []
    at = _skip(text, start + 1)
    while text[at] != "]":
        end = _decode(text, at)[1]
        found.append(text[at:end])
        at = end + 1 if text[end : end + 2] == ",{" else _skip(text, end, ",")
    return found, at + 1


def _skip(text: str, at: int, separator: str = "") -> int:
    """The position after white space and separators. Valid JSON has at most one separator here."""
    while text[at] in " \t\n\r" or text[at] == separator:
        at += 1
    return at


def _problem(exc: ValidationError) -> errors.Problem:
    """The problem for a body's validation errors."""
    if exc.error_count() > LISTED_MAX:
        message = f"it has {exc.error_count()} errors, too many to list"
        return errors.invalid([{"loc": [], "msg": message, "type": "too_many_errors"}])
    found = exc.errors(include_url=False, include_input=False, include_context=False)[:ERRORS_MAX]
    if found[0]["type"] == "json_invalid" and not found[0]["loc"]:  # else it is in a Json[...] field
        return errors.malformed(found[0]["msg"])
    return errors.invalid([{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in found])
