"""The body of a request: its type, its size, and the input it describes."""

from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from apps.api import errors
from apps.contract.tasks import Input

# Told to a client of an invalid input; more would repeat themselves.
ERRORS_MAX = 10


async def read_json(request: Request, limit_bytes: int) -> bytes:
    """The body, never more of it in memory than the limit. Raises the 413 and 415 problems."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise errors.not_json()
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise errors.too_large(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise errors.too_large(limit_bytes)
    return bytes(body)


def parse_input(adapter: TypeAdapter[Input], body: bytes) -> Input:
    """The input in a body. Raises the 400 problem where it is not JSON, and the 422 one where it is no input."""
    try:
        return adapter.validate_json(body)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False, include_context=False)[:ERRORS_MAX]
    if found[0]["type"] == "json_invalid":
        raise errors.malformed(found[0]["msg"])
    raise errors.invalid([_readable(error) for error in found])


def _readable(error: Any) -> dict[str, Any]:
    return {"loc": list(error["loc"]), "msg": error["msg"], "type": error["type"]}
