"""The clients of the API: name, bearer key and quota of each, from API_KEYS or the file API_KEYS_FILE.

Two forms: `name:key[,name:key...]`, or JSON, which can also set a quota per client:

    [{"name": "shop", "key": "...", "tasks_per_s": 50, "open_tasks": 5000}, {"name": "reports", "key": "..."}]
"""

import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

SECRET_MIN_BYTES = 16  # a shorter one can be guessed
SECRET_MAX_BYTES = 64  # the longest key of blake2b
CLIENT_NAME_MAX = 64  # message headers contain it, and must fit into the smallest frame, 4 KiB
FORM = "it must read name:key[,name:key...], or be a JSON array of objects with name, key, tasks_per_s and open_tasks"


def _secret(value: SecretStr) -> SecretStr:
    if not SECRET_MIN_BYTES <= len(value.get_secret_value().encode()) <= SECRET_MAX_BYTES:
        raise ValueError(f"it must have {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes")
    return value


def _bearer(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("a key has visible ASCII characters only: no header carries another one")
    return value


def _name(value: str) -> str:
    if len(value) > CLIENT_NAME_MAX:
        raise ValueError(f"a name may have {CLIENT_NAME_MAX} characters at most")
    if not value.isprintable():
        raise ValueError("a name has printable characters only")
    return value


Secret = Annotated[SecretStr, AfterValidator(_secret)]
# Accepted tasks per second on average, and waiting or running tasks at once. A client without one has the default.
TasksPerS = Annotated[int, Field(ge=1, le=1_000_000)]
OpenTasks = Annotated[int, Field(ge=1, le=1_000_000_000)]


class ApiKey(BaseModel):
    """A client's name, key and quota."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1), AfterValidator(_name)]
    key: Annotated[Secret, AfterValidator(_bearer)]
    tasks_per_s: TasksPerS | None = None
    open_tasks: OpenTasks | None = None


_KEYS = TypeAdapter(tuple[ApiKey, ...])


def parse(text: str) -> tuple[ApiKey, ...]:
    """Parse clients in either form. Raises ValueError with one sentence that contains no key."""
    text = text.strip()
    try:
        keys = _KEYS.validate_json(text) if text.startswith("[") else _KEYS.validate_python(_pairs(text))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(_sentence(error["loc"], error["msg"].removeprefix("Value error, "))) from None
    if len({each.name for each in keys}) < len(keys):
        raise ValueError("it gives a name twice; each client has one key, and a changed key keeps the name")
    if len({each.key.get_secret_value() for each in keys}) < len(keys):
        raise ValueError("it gives two clients the same key: give each client a key of its own")
    return keys


def first_key(text: str) -> str:
    """The first client's bearer key, for a program that posts as this client. `text` must be valid."""
    text = text.strip()
    return str(json.loads(text)[0]["key"]) if text.startswith("[") else text.split(",")[0].partition(":")[2]


def _pairs(text: str) -> list[dict[str, str]]:
    pairs = [pair.strip().partition(":") for pair in text.split(",") if pair.strip()]
    if any(not name or not key for name, _, key in pairs):
        raise ValueError(FORM)
    return [{"name": name, "key": key} for name, _, key in pairs]


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    """The sentence for an error. It shows names of fields, which may be mistyped, but never values."""
    if not location:
        return f"{FORM} ({message})"
    number, *field = location
    return f"{message} (client {int(number) + 1}{''.join(f', {each}' for each in field)})"
