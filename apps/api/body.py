"""A request's headers and body: the body's type and size, how complex it may be, and the inputs in it."""

import json
import logging
from itertools import accumulate
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError, create_model

from apps.api import errors
from apps.api.headers import one_header, require_json, require_length
from apps.contract.message import Payload
from apps.contract.tasks import Input, Registry, input_union

log = logging.getLogger(__name__)

BATCH_MAX = 1000
# Told to a client of an invalid input; more would repeat themselves.
ERRORS_MAX = 10
# Told of all inputs of a batch, before the others have one each: the answer has few MB, whatever the body is.
BATCH_ERRORS_MAX = 1000
# Of more errors, only their number is told. pydantic can only list all of them: these take 30 ms.
LISTED_MAX = 20_000
# Keys and elements of a body: a document of 1 MiB in which each has ten bytes. A team's model may cost 10 us for each
# (a union of five types does, where none fits).
VALUES_MAX = 100_000
# The parser stops at 200. A batch adds two levels, its object and its array, to those of an input.
BATCH_LEVELS = 2
DEPTH_MAX = 200 - BATCH_LEVELS
# A body that is parsed on the event loop has no more bytes and values: that takes a few milliseconds, also with a union
# of five types. To send it to the parser's process would take 0.2 ms.
LIGHT_BYTES = 64 * 1024
LIGHT_VALUES = 500


async def read_json(request: Request, limit_bytes: int) -> bytes:
    """The body, never more of it in memory than the limit. Raises the 400, 413 and 415 problems."""
    require_json(one_header(request, "content-type"))
    require_length(one_header(request, "content-length"), limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise errors.too_large(limit_bytes)
    return bytes(body)


def is_light(body: bytes) -> bool:
    """Whether a body can be parsed on the event loop. The count has commas and brackets in strings too."""
    if len(body) <= 2 * DEPTH_MAX:  # as most; each level has a bracket at both ends
        return True
    if len(body) > LIGHT_BYTES:
        return False
    opened = body.count(b"[") + body.count(b"{")
    return opened <= DEPTH_MAX and body.count(b",") + opened <= LIGHT_VALUES


def require_bounded(body: bytes, depth_max: int) -> None:
    """Raises the 413 problem of a body that is too complex to be parsed, found by a scan of its bytes.

    Each key and element is counted by the comma or bracket before it, outside of strings. Of a body that is no JSON
    the counts mean nothing; the parser refuses it.
    """
    without_escapes = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if without_escapes.count(b'"') > 4 * VALUES_MAX:  # as many strings as VALUES_MAX keys have, each with a string
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
    """The deepest level of what is outside of strings."""
    return max(accumulate(map(_STEPS.__getitem__, outside.translate(None, _NO_BRACKETS))))


def parse_input(adapter: TypeAdapter[Input], text: bytes | str) -> Payload:
    """The input in a JSON text. Raises the 400 problem where it is not JSON, and the 422 one where it is no input."""
    try:
        task = adapter.validator.validate_json(
            text
        ).task  # without the adapter's options, which take a fifth of the time
    except ValidationError as exc:
        raise _problem(exc) from None
    except BaseException as exc:
        # A defect of the model's validator, sys.exit() and a panic of Rust code included. The answer says that nothing
        # was accepted, and that repeating cannot help.
        log.exception("validator failed")
        message = f"the model's validator raised {type(exc).__name__}"
        raise errors.invalid([{"loc": [], "msg": message, "type": "validator_failed"}]) from None
    return Payload(task, text if isinstance(text, str) else text.decode())


def batch_model(tasks: Registry) -> type[BaseModel]:
    """The model of a batch: its inputs are described by their models, and validated one by one in `parse_batch`."""
    element: Any = Annotated[input_union(tasks), SkipValidation]
    fields: Any = {"tasks": (list[element], Field(min_length=1, max_length=BATCH_MAX))}
    model: type[BaseModel] = create_model("Batch", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def parse_batch(model: type[BaseModel], adapter: TypeAdapter[Input], body: bytes) -> list[Payload | errors.Problem]:
    """The inputs of a batch, or the problem of each that is none. Raises as `parse_input`.

    An input is its slice of the body, so it is accepted, refused and carried as if it had been posted alone.
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


# Finds the end of a JSON value, at the speed of C. The value itself is not used: numbers stay text, because Python
# refuses integers of more than 4,300 digits.
_decode = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode


def elements(text: str) -> list[str]:
    """The elements of the array in a valid batch, each as its slice of the text.

    If the name is repeated, the last array counts, as it does for pydantic.
    """
    found: list[str] = []
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        colon = _skip(text, _decode(text, at)[1])
        at = _skip(text, colon + 1)
        if text[at] == "[":
            found, end = _array(text, at)
        else:  # not the last one: pydantic has refused a batch whose last value is no array
            end = _decode(text, at)[1]
        at = _skip(text, end, ",")
    return found


def _array(text: str, start: int) -> tuple[list[str], int]:
    """The elements of the array that begins at `start`, and where the array ends."""
    found = []
    at = _skip(text, start + 1)
    while text[at] != "]":
        end = _decode(text, at)[1]
        found.append(text[at:end])
        at = end + 1 if text[end : end + 2] == ",{" else _skip(text, end, ",")
    return found, at + 1


def _skip(text: str, at: int, separator: str = "") -> int:
    """The position after white space and separators; valid JSON has no more separators than it needs."""
    while text[at] in " \t\n\r" or text[at] == separator:
        at += 1
    return at


def _problem(exc: ValidationError) -> errors.Problem:
    """What is wrong with a body, for its sender."""
    if exc.error_count() > LISTED_MAX:
        message = f"it has {exc.error_count()} errors, too many to list"
        return errors.invalid([{"loc": [], "msg": message, "type": "too_many_errors"}])
    found = exc.errors(include_url=False, include_input=False, include_context=False)[:ERRORS_MAX]
    if found[0]["type"] == "json_invalid" and not found[0]["loc"]:  # with a place, it is of a field Json[...]
        return errors.malformed(found[0]["msg"])
    return errors.invalid([{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in found])
