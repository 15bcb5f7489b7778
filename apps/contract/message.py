"""A task on the wire: a message of Celery's protocol 2, as its own `as_task_v2` would build it.

Source: Celery's documentation, "Message Protocol", version 2. On top of it three headers of ours, which survive
Celery's retries: `publish_id` (one per publish; tells a republished task from a redelivered one), `owner` (the
client's name) and `request_id`; and `traceparent` (W3C Trace Context) where the request had one.

The one argument is a string: the client's JSON, as it was accepted. The API and the worker validate the same text by
the same model, so the task receives the value that was accepted, whatever the model's fields and configuration are.
"""

import json
from typing import Any, NamedTuple

from pydantic_core import to_json

from apps.contract import topology
from apps.contract.failures import FAILURE_HEADER
from apps.contract.ids import random_hex
from apps.contract.tasks import Input, TaskSpec

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"
# Headers of a dead letter, which the same work under another id does not have.
_OF_THE_DEAD = {FAILURE_HEADER, "reason"}  # the second was written by earlier versions
_EMBED = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


class Payload(NamedTuple):
    """An accepted input: the short name of its task, and the JSON text that was validated."""

    task: str
    text: str


class TaskMessage(NamedTuple):
    """A new task, ready to be published to the exchange, persistent and mandatory."""

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
        """The message's headers."""
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
            # the worker's own registry decides, so that a changed limit reaches waiting tasks
            "timelimit": [None, None],
            "root_id": self.task_id,
            "parent_id": None,
            "argsrepr": "(...)",  # inputs are the client's business: they stay out of logs and consoles
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


def task_message(  # noqa: PLR0913 - all by name: what varies from message to message
    spec: TaskSpec, text: str, *, task_id: str, owner: str, request_id: str, traceparent: str | None = None
) -> TaskMessage:
    """Build the message of a new task with this JSON as its input, under a publish id of its own."""
    body = b"[[" + to_json(text) + b"],{}" + _EMBED
    return TaskMessage(spec.name, spec.queue, task_id, random_hex(), owner, request_id, traceparent, body)


def read_input(model: type[Input], argument: object) -> Input:
    """The input of a task, from its message's one argument. Raises ValidationError.

    The core validator is the one that the API's union of models runs, whatever classmethods a model overrides.
    """
    if isinstance(argument, str):
        return model.__pydantic_validator__.validate_json(argument)  # type: ignore[no-any-return]  # pydantic_core: Any
    # An API of commit 0ddeda5 or earlier sent an object: the validated input, dumped in JSON mode by field name. Delete
    # this branch when no such message can be left: 24 h after the last such API stopped, and once nothing that was
    # parked before then is to be sent again.
    dumped = json.dumps(argument)
    return model.__pydantic_validator__.validate_json(dumped, by_alias=True, by_name=True)  # type: ignore[no-any-return]


def obstacle_to_requeue(headers: dict[str, Any], body: bytes) -> str | None:
    """Why a parked message cannot be sent again, as a sentence; None where it can."""
    if not isinstance(headers.get("owner"), str):
        return "it was not posted to the API: it has no owner who could read its result"
    queue = str(headers.get("task")).partition(":")[0]
    if queue not in topology.WORK_QUEUES:
        return f"its task, {headers.get('task')!r}, is in none of the queues {', '.join(topology.WORK_QUEUES)}"
    try:
        arguments = json.loads(body)[0]
        readable = isinstance(arguments, list) and len(arguments) == 1
    except (ValueError, TypeError, LookupError, RecursionError):
        readable = False
    return None if readable else "its body is not a task's input: no worker could read it; post the task again"


class Republished(NamedTuple):
    """The same work under another id: what a requeue from the parked messages sends."""

    task_id: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]


def republished(headers: dict[str, Any], body: bytes, *, task_id: str, routing_key: str) -> Republished:
    """Build it from a parked message."""
    kept = {name: value for name, value in headers.items() if not name.startswith("x-") and name not in _OF_THE_DEAD}
    fresh = {"id": task_id, "root_id": task_id, "retries": 0, "publish_id": random_hex(), "eta": None, "expires": None}
    return Republished(task_id, routing_key, body, kept | fresh)
