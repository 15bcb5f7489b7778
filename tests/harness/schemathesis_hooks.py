"""Rules for Schemathesis that the OpenAPI document cannot express: a key per body, and a stream as one text."""

import re
from typing import Any
from uuid import uuid4

import schemathesis

from apps.api.request_headers import KEY_FORM


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Replace each well-formed Idempotency-Key by a new one; malformed keys are sent unchanged."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key is not None and re.fullmatch(KEY_FORM, key):
        case.headers["Idempotency-Key"] = uuid4().hex


@schemathesis.deserializer("text/event-stream")
def stream(_context: Any, response: Any) -> list[str]:
    """Compare the whole stream with its schema, as OpenAPI 3.1 defines it; Schemathesis compares each event."""
    return [response.text]
