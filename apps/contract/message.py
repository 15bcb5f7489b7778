"""A task on the wire: a message of Celery's protocol 2, as its own `as_task_v2` would build it.

Source: Celery's documentation, "Message Protocol", version 2. On top of it three headers of ours, which survive
Celery's retries: `publish_id` (one per publish; tells a republished task from a redelivered one), `owner` (the
client's name) and `request_id`.
"""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from apps.contract.tasks import Input, TaskSpec

CONTENT_TYPE = "application/json"
_EMBED = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


@dataclass(frozen=True)
class TaskMessage:
    """A message ready to be published to the exchange, persistent and mandatory."""

    task_id: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]


def task_message(spec: TaskSpec, payload: Input, *, task_id: str, owner: str, request_id: str) -> TaskMessage:
    """Build the message of a new task, under a publish id of its own."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": spec.name,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],  # the worker's own registry decides, so that a changed limit reaches waiting tasks
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "(...)",  # inputs are the client's business: they stay out of logs and consoles
        "kwargsrepr": "{}",
        "origin": "sluice-api",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "publish_id": uuid4().hex,
        "owner": owner,
        "request_id": request_id,
    }
    body = b"[[" + payload.model_dump_json().encode() + b"],{}" + _EMBED
    return TaskMessage(task_id, spec.queue, body, headers)


def republished(headers: dict[str, Any], body: bytes, *, task_id: str, routing_key: str) -> TaskMessage:
    """The same work under another id: what a requeue from the parked messages sends."""
    kept = {name: value for name, value in headers.items() if not name.startswith("x-") and name != "reason"}
    fresh = {"id": task_id, "root_id": task_id, "retries": 0, "publish_id": uuid4().hex}
    return TaskMessage(task_id, routing_key, body, kept | fresh)
