"""What Schemathesis must know of this API beyond its description: a key is used for one body."""

import re
from typing import Any
from uuid import uuid4

import schemathesis

from apps.api.idempotency import FORM


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Make each well-formed Idempotency-Key a new one; the others are sent as they are."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key is not None and re.fullmatch(FORM, key):
        case.headers["Idempotency-Key"] = uuid4().hex
