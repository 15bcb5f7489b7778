"""Rules for request headers, called by the routes and the fast path."""

from typing import Annotated

from fastapi import Request
from pydantic import StringConstraints

from apps.api import errors

KEY_FORM = r"^[\x21-\x7e]+$"
KEY_MAX_CHARS = 255
IdempotencyKey = Annotated[str, StringConstraints(pattern=KEY_FORM, max_length=KEY_MAX_CHARS)]
JSON = "application/json"
_CHARSETS = frozenset({"charset=utf-8", 'charset="utf-8"'})


def one_header(request: Request, name: str) -> str | None:
    """The value of a header. Raises the 400 problem if it was sent more than once."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise errors.malformed(f"the header {name} was sent {len(values)} times")
    return values[0] if values else None


def require_json(content_type: str | None) -> None:
    """Raise the 415 problem unless the content type is JSON in UTF-8."""
    if content_type == JSON:  # the usual case
        return
    media_type, *parameters = (content_type or "").lower().split(";")
    if media_type.strip() != JSON or not _CHARSETS.issuperset(parameter.strip() for parameter in parameters):
        raise errors.not_json()


def require_length(content_length: str | None, limit_bytes: int) -> None:
    """Raise the 413 problem if Content-Length is too large. A body without it is counted while it is read."""
    if content_length is not None and content_length.isdecimal() and int(content_length) > limit_bytes:
        raise errors.too_large(limit_bytes)
