"""A task on the wire: a message of Celery's protocol 2, as Celery's `as_task_v2` builds it.

Source: Celery's documentation, "Message Protocol", version 2. Sluice adds headers, which Celery's retries keep:
`publish_id` (one per publish; distinguishes a republished task from a redelivered one), `owner` (the client's name),
`request_id`, and `traceparent` (W3C Trace Context) if the request had one.

The only argument is a string: the client's JSON, unchanged. The API and the worker validate the same text with the
same model, so the task receives the accepted value, whatever the model's fields and configuration are.
"""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic_core import to_json

from apps.contract import topology
from apps.contract.failures import FAILURE_HEADER
from apps.contract.ids import random_hex
from apps.contract.tasks import Input, TaskSpec

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"
# Set by workers that do not understand a message: time of the first return (s since the epoch), number of returns.
FIRST_RETURN_HEADER = "first_return_s"
RETURNS_HEADER = "returns"
# Headers of a dead letter, which a requeue under a new id drops.
_OF_THE_DEAD = {FAILURE_HEADER, FIRST_RETURN_HEADER, RETURNS_HEADER, "reason"}  # "reason": earlier versions
# The form of a message: absent means 1, the form of this module. A change of what workers read from a message must
# increase this number: workers of an earlier version then leave such messages to workers of a later version.
FORM_HEADER = "form"
FORM = 1
# An unreadable message is parked with its body unchanged and its properties as raw bytes (base64) in a header. A frame
# has 128 KiB: larger properties are put in front of the body, and another header has their size.
RAW_HEADER = "raw_properties"
RAW_SIZE_HEADER = "raw_properties_bytes"
_RAW_HEADER_MAX_BYTES = 64 * 1024
_EMBED = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


class Payload(NamedTuple):
    """An accepted input: the short name of its task, and the validated JSON text."""

    task: str
    text: str


class TaskMessage(NamedTuple):
    """A new task, to be published to the exchange as a persistent and mandatory message."""

    task: str
    routing_key: str
    task_id: str
    publish_id: str
    owner: str
    request_id: str
    traceparent: str | None
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        """Celery's headers and those of Sluice."""
        headers: dict[str, Any] = {
            "lang": "py",
            "task": self.task,
            "id": self.task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            # the worker's registry has the limits: a changed limit also applies to waiting tasks
            "timelimit": [None, None],
            "root_id": self.task_id,
            "parent_id": None,
            "argsrepr": "(...)",  # inputs are confidential: keep them out of logs and consoles
            "kwargsrepr": "{}",
            "origin": "sluice-api",
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "publish_id": self.publish_id,
            "owner": self.owner,
            "request_id": self.request_id,
        }
        return headers if self.traceparent is None else headers | {"traceparent": self.traceparent}


def task_message(  # noqa: PLR0913 - keyword arguments: everything that varies between messages
    spec: TaskSpec, text: str, *, task_id: str, owner: str, request_id: str, traceparent: str | None = None
) -> TaskMessage:
    """Build the message of a new task with a new publish id. `text` is its input as JSON."""
    body = b"[[" + to_json(text) + b"],{}" + _EMBED
    return TaskMessage(spec.name, spec.queue, task_id, random_hex(), owner, request_id, traceparent, body)


_TEXT, _MAYBE_TEXT = (str,), (str, type(None))
# Allowed types of the headers that Celery or the worker reads; other headers are ignored.
_HEADERS: Mapping[str, tuple[type, ...]] = {
    "id": _TEXT,
    "task": _TEXT,
    "publish_id": _TEXT,
    "owner": _TEXT,
    "request_id": _MAYBE_TEXT,
    "traceparent": _MAYBE_TEXT,
    "retries": (int,),
    "eta": _MAYBE_TEXT,
    "expires": _MAYBE_TEXT,
    "shadow": (type(None),),  # it would replace the task's name in logs and metrics
    "group": (type(None),),
    "group_index": (type(None),),
    "root_id": _MAYBE_TEXT,
    "parent_id": _MAYBE_TEXT,
    "timelimit": (list, type(None)),
    "argsrepr": _MAYBE_TEXT,
    "kwargsrepr": _MAYBE_TEXT,
    "origin": _MAYBE_TEXT,
    "ignore_result": (bool, type(None)),
    "replaced_task_nesting": (int, type(None)),
    "stamped_headers": (type(None), list),
    "stamps": (dict, type(None)),
    "x-death": (list, type(None)),
    FIRST_RETURN_HEADER: (int, float, type(None)),
    RETURNS_HEADER: (int, type(None)),
    FORM_HEADER: (int, type(None)),
    "CC": (type(None),),  # the broker would also route every republished copy to these keys
}
_OF_EACH_FORM = ("id", "task", "publish_id", "owner", "retries", FIRST_RETURN_HEADER, RETURNS_HEADER, FORM_HEADER)
_REQUIRED = ("id", "task", "publish_id", "owner", "retries")
_NAMES = tuple(_HEADERS)
# Cache of valid combinations of header types: one look-up for almost every message, in a third of the time.
_readable: set[tuple[type, ...]] = set()
_READABLE_MAX = 100


def unreadable_because(headers: Mapping[Any, Any]) -> str | None:
    """Why these headers are not those of a task, as a sentence; None if they are.

    For a message of another form, only the headers that identify the task and its owner are checked.
    """
    types = tuple(map(type, map(headers.get, _NAMES)))
    if types in _readable:
        return None
    known = is_known_form(headers)
    for name in _NAMES if known else _OF_EACH_FORM:
        value = headers.get(name)
        if type(value) not in _HEADERS[name] and (value is not None or name in _REQUIRED):
            return f"its header {name} {'is missing' if value is None else f'is of the type {type(value).__name__}'}"
    reason = _unreadable_death(headers.get("x-death"))
    if known and reason is None and headers.get("x-death") is None and len(_readable) < _READABLE_MAX:
        _readable.add(types)
    return reason


def is_known_form(headers: Mapping[Any, Any]) -> bool:
    """Whether this version can read the form of a message."""
    form = headers.get(FORM_HEADER)
    return form is None or bool(form == FORM)


def _unreadable_death(deaths: object) -> str | None:
    """Why `x-death` was not written by the broker. Extending such a list, RabbitMQ 3.10 stops all dead-lettering."""
    if deaths is not None and not isinstance(deaths, list):
        return f"its header x-death is of the type {type(deaths).__name__}"
    for death in deaths or ():
        if not isinstance(death, dict) or not all(isinstance(death.get(name), str) for name in ("queue", "reason")):
            return "its header x-death is not the broker's own"
        if not isinstance(death.get("count", 1), int) or not isinstance(death.get("routing-keys", []), list):
            return "its header x-death is not the broker's own"
    return None


def unreadable_body_because(body: bytes) -> str | None:
    """Why this is not the body of a task, as a sentence; None if it is."""
    try:
        arguments, keywords, embedded = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return "its body is not a JSON list of arguments, keywords and options"
    one = isinstance(arguments, list) and len(arguments) == 1 and isinstance(arguments[0], str | dict)
    if not one or keywords or not isinstance(embedded, dict) or any(embedded.values()):
        return "its body is not one input"
    return None


class Raw(NamedTuple):
    """An unreadable message in a form that every client library can read."""

    body: bytes
    headers: dict[str, Any]


def raw(properties: bytes, body: bytes, failed: dict[str, str]) -> Raw:
    """Wrap an unreadable message: its body and properties unchanged, and the failure."""
    headers: dict[str, Any] = {FAILURE_HEADER: json.dumps(failed)}
    if len(properties) <= _RAW_HEADER_MAX_BYTES:
        return Raw(body, headers | {RAW_HEADER: base64.b64encode(properties).decode()})
    return Raw(properties + body, headers | {RAW_SIZE_HEADER: len(properties)})


def raw_properties(headers: Mapping[Any, Any], body: bytes) -> bytes | None:
    """The original properties of a message that `raw` wrapped; None for any other message."""
    kept, size = headers.get(RAW_HEADER), headers.get(RAW_SIZE_HEADER)
    if isinstance(kept, str):
        with suppress(ValueError):  # the publisher is not trusted
            return base64.b64decode(kept, validate=True)
    return body[:size] if isinstance(size, int) and 0 <= size <= len(body) else None


def read_input(model: type[Input], argument: object) -> Input:
    """Validate the only argument of a task's message. Raises ValidationError.

    Calls the core validator, as the API's union of models does: a model may override `model_validate_json`.
    """
    if isinstance(argument, str):
        return model.__pydantic_validator__.validate_json(argument)  # type: ignore[no-any-return]  # pydantic_core: Any
    # An API of commit 0ddeda5 or earlier sent an object: the validated input, dumped in JSON mode by field name. Delete
    # this branch 24 h after the last such API has stopped, and once no message parked before then will be requeued.
    dumped = json.dumps(argument)
    return model.__pydantic_validator__.validate_json(dumped, by_alias=True, by_name=True)  # type: ignore[no-any-return]


def obstacle_to_requeue(headers: Mapping[Any, Any]) -> str | None:
    """Why a readable parked message cannot be requeued, as a sentence; None if it can."""
    queue = str(headers.get("task")).partition(":")[0]
    if queue not in topology.WORK_QUEUES:
        return f"its task, {headers.get('task')!r}, is in none of the queues {', '.join(topology.WORK_QUEUES)}"
    return None


class Republished(NamedTuple):
    """A parked task under a new id, as a requeue publishes it."""

    task_id: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]


def republished(headers: Mapping[Any, Any], body: bytes, *, task_id: str, routing_key: str) -> Republished:
    """Build a Republished message from a parked one."""
    kept = {
        name: value
        for name, value in headers.items()
        # drops headers that the broker added, and those that Sluice never writes
        if not str(name).startswith("x-") and name not in _OF_THE_DEAD and (name in _HEADERS or isinstance(value, str))
    }
    fresh = {"id": task_id, "root_id": task_id, "retries": 0, "publish_id": random_hex(), "eta": None, "expires": None}
    return Republished(task_id, routing_key, body, kept | fresh)
