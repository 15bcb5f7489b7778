"""The OpenAPI document: all answers of all calls, with examples from the code that answers.

FastAPI describes only the parts that it handles; this module adds bodies and errors. The document has version 3.1,
which client generators support; 3.2 could also describe the events of a stream (`itemSchema`).
"""

import datetime as dt
import json
import math
from collections import Counter
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, SchemaValidator, from_json, to_json
from typing_extensions import TypeAliasType

from apps.api import errors
from apps.api.body import BATCH_MAX, VALUES_MAX
from apps.api.streams import EventStream
from apps.contract.quota import Quota
from apps.contract.settings import ApiSettings
from apps.contract.states import FINAL, State, failure, status
from apps.contract.tasks import Input
from apps.contract.text import clean_all

_REF = "#/components/schemas/{model}"
_ID = "0199d5a0-7c3e-7b1c-9f0e-2f6d3a1b4c5d-8c1f0a9b7d6e5f43"
# Limit per text in the document: above any description or pattern.
TEXT_MAX_CHARS = 1_000_000
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


# With its own name, generators create one enumeration of it instead of one for each model.
TaskStatus = TypeAliasType("TaskStatus", State)


class Task(BaseModel):
    """The status of a task. `task_result` is its output, or `{type, message}` of a FAILURE."""

    task_id: str
    task_status: TaskStatus
    task_result: Any = None


class Accepted(BaseModel):
    """An accepted task: the broker has confirmed it."""

    task_id: str
    task_status: TaskStatus


class Problem(BaseModel):
    """An error (RFC 9457). Programs should evaluate `type`. Some types have additional members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None


class AcceptedInput(Accepted):
    """An accepted input of a batch: the broker has confirmed it."""

    status: int


class Outcomes(BaseModel):
    """The outcome of each input of a batch, in the order of the inputs."""

    outcomes: list[AcceptedInput | Problem]


_OWN = TypeAdapter(Task | Accepted | Problem | AcceptedInput | Outcomes).json_schema(ref_template=_REF)["$defs"]
_HEADERS = {
    "Location": "URL of the task's status",
    "Retry-After": "seconds to wait before polling or retrying",
    "Allow": "supported methods",
    "WWW-Authenticate": "Bearer",
}


Answers = dict[int | str, dict[str, Any]]


def _answer(description: str, model: type[BaseModel], *examples: dict[str, Any], headers: Any = ()) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": _content(model, {str(n): one for n, one in enumerate(examples, start=1)})},
        "headers": _described(headers),
    }


def _content(model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"value": example} for name, example in examples.items()}
    return {"schema": {"$ref": _REF.format(model=model.__name__)}, "examples": named}


def _described(headers: Any) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in headers}


def _answers(good: Answers, *problems: errors.Problem) -> Answers:
    """The possible answers of a call by status: successes, and problems."""
    answers = good.copy()
    for status_ in sorted({problem.status for problem in problems}):
        kinds = [problem for problem in problems if problem.status == status_]
        examples = {_example_name(problem): errors.document(problem) for problem in kinds}
        answers[status_] = {
            "description": "; ".join(dict.fromkeys(f"{problem.kind}: {problem.detail}" for problem in kinds)),
            "content": {errors.MEDIA_TYPE: _content(Problem, examples)},
            "headers": _described({name for problem in kinds for name in problem.headers}),
        }
    return answers


def _example_name(problem: errors.Problem) -> str:
    quota = problem.members.get("quota")
    return problem.kind + (f"-{quota['exceeded']}" if quota else "-whole" if "outcomes" in problem.members else "")


_ANYWHERE = (errors.malformed("what is wrong with the request"), errors.unauthenticated())
_OF_A_TASK = (*_ANYWHERE, errors.not_found(), errors.expired(), errors.results_unavailable())
_WRONG = [{"loc": ["a_task", "a_field"], "msg": "String should have at least 1 character", "type": "string_too_short"}]
_QUOTA = Quota(100, 20_000)
_OF_A_POST = (
    *_ANYWHERE,
    errors.too_slow("body", 30),
    errors.request_open(),
    errors.too_large(ApiSettings.model_fields["body_max_bytes"].default),
    errors.too_complex(f"it may have {VALUES_MAX} keys and elements at most"),
    errors.not_json(),
    errors.invalid(_WRONG),
    errors.key_reused(),
    errors.quota_exceeded(_QUOTA, "open_tasks", 1, after_s=errors.RETRY_AFTER_S),
    errors.quota_exceeded(_QUOTA, "tasks_per_s", 100, after_s=1),
    errors.refused("queue-full"),
    errors.results_full(),
    errors.outcome_unknown("deadline"),
)
_OF_A_WHOLE_BATCH = (errors.invalid(_WRONG), errors.refused("queue-full"), errors.outcome_unknown("deadline"))
_PENDING = {"task_id": _ID, "task_status": "PENDING"}
_OUTCOMES = {"outcomes": [{"status": 202, **_PENDING}, errors.document(errors.invalid(_WRONG))]}
_SUCCESS = status(_ID, "SUCCESS", {"a_field": "a value"})
_FAILURE = status(_ID, "FAILURE", failure("ValueError", "abc is not acceptable"))
_EVENTS = f'id: STARTED\nevent: STARTED\ndata: {{"task_id":"{_ID}","task_status":"STARTED","task_result":null}}\n\n'
_OWN["Event"] = {
    "title": "Event",
    "description": "An event in the stream of a task. `data` is a Task as JSON.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "enum": ["STARTED", *sorted(FINAL)]},
        "event": {"type": "string", "enum": ["STARTED", *sorted(FINAL)]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": _REF.format(model="Task")},
        },
    },
    "required": ["id", "event", "data"],
}

RESPONSES: dict[str, Answers] = {
    "post": _answers(
        {
            202: _answer(
                "accepted: the broker has confirmed the task", Accepted, _PENDING, headers=("Location", "Retry-After")
            )
        },
        *_OF_A_POST,
    ),
    "batch": _answers(
        {202: _answer("some or all inputs were accepted", Outcomes, _OUTCOMES, headers=("Retry-After",))},
        *_OF_A_POST,
        *(problem.with_members(outcomes=[errors.document(problem)] * 2) for problem in _OF_A_WHOLE_BATCH),
    ),
    "get": _answers(
        {200: _answer("the state and the result of the task", Task, _SUCCESS, _FAILURE)},
        *_OF_A_TASK,
        errors.too_many_waiting(),
    ),
    "events": _answers(
        {
            200: {
                "description": "events of the component Event: each state once, then the end of the stream; "
                "a comment every 15 s",
                "content": {EventStream.media_type: {"schema": {"type": "string"}, "example": _EVENTS}},
            },
            204: {"description": "the client has already received the last event"},
        },
        *_OF_A_TASK,
        errors.too_many_streams(500),
        errors.streams_full(),
    ),
    "delete": _answers(
        {
            200: _answer("the task will not run", Task, status(_ID, "REVOKED")),
            202: _answer(
                "the task is running, and its cancellation was requested",
                Task,
                status(_ID, "STARTED"),
                headers=("Retry-After",),
            ),
        },
        *_OF_A_TASK,
        errors.already_ended("SUCCESS"),
    ),
    "readyz": _answers({}, errors.not_ready(["draining"])),
    "healthz": _answers({}, errors.unhealthy({"broker": "down", "redis": "up", "redis_memory_share": 0.42})),
}


def install(app: FastAPI, inputs: TypeAdapter[Input]) -> None:
    """Set the app's OpenAPI document."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app, inputs)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation does


def _describe(app: FastAPI, inputs: TypeAdapter[Input]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    bodies, schemas = _bodies(inputs)
    for path, schema in bodies.items():
        document["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # an invalid parameter is answered with 400; FastAPI would document its 422
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if path.startswith("/tasks"):
                operation["security"] = [{"bearer": []}]
    document["components"] = {
        "schemas": schemas | _OWN,
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    # examples and descriptions of models may contain values that JSON does not have
    cleaned = _json_only(clean_all(document, TEXT_MAX_CHARS))
    plain: dict[str, Any] = from_json(to_json(cleaned, inf_nan_mode="null"))
    return plain


def _json_only(value: Any) -> Any:
    """The value without entries that JSON cannot represent, and without bounds that are NaN or infinite."""
    if isinstance(value, dict):
        return {
            name: _json_only(one)
            for name, one in value.items()
            if _is_json(one) and not (name in _BOUNDS and isinstance(one, float) and not math.isfinite(one))
        }
    if isinstance(value, list | tuple):
        return [_json_only(one) for one in value if _is_json(one)]
    return value


def _is_json(value: Any) -> bool:
    """Whether JSON can represent a value; the items of collections are checked separately."""
    if isinstance(value, str | dict | list | tuple):
        return True
    try:
        to_json(value)
    except (PydanticSerializationError, UnicodeError):
        return False
    return True


def _bodies(inputs: TypeAdapter[Input]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Path -> schema of its body, and the components that these use: the models of the tasks, and Batch."""
    schemas, definitions = TypeAdapter.json_schemas(
        [("input", "validation", inputs)], ref_template=_REF, schema_generator=_TeamSchema
    )
    input_ = schemas["input", "validation"]
    batch = {
        "title": "Batch",
        "type": "object",
        "properties": {"tasks": {"type": "array", "items": input_, "minItems": 1, "maxItems": BATCH_MAX}},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    _distinguish_titles(definitions["$defs"], batch)
    bodies = {"/tasks": input_, "/tasks/batch": {"$ref": _REF.format(model="Batch")}}
    return bodies, definitions["$defs"] | {"Batch": batch}


def _distinguish_titles(theirs: dict[str, Any], batch: dict[str, Any]) -> None:
    """Give models with the same title the names of their components: generators name classes by titles."""
    named = [*theirs.items(), *_OWN.items(), ("Batch", batch)]
    counts = Counter(schema.get("title", name) for name, schema in named)
    for name, schema in theirs.items():
        if "title" in schema and counts[schema["title"]] > 1:
            schema["title"] = name


class _TeamSchema(GenerateJsonSchema):
    """Describes any model that can be validated, and renames those with the names of our own components."""

    def normalize_name(self, name: str) -> str:
        normalized = super().normalize_name(name)
        return f"{normalized}Model" if normalized in {*_OWN, "Batch"} else normalized

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:  # noqa: ARG002 - pydantic's
        """Describe it as any value: JSON Schema cannot express a custom validator."""
        return {}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Ignore warnings: JSON Schema need not express everything."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        metadata = schema.get("metadata", {})
        extra = metadata.get("pydantic_js_extra")
        if isinstance(extra, dict):  # json_schema_extra; pydantic raises if it is not JSON
            schema = schema | {"metadata": metadata | {"pydantic_js_extra": _json_only(extra)}}
        return super().generate_inner(schema)

    def enum_schema(self, schema: Any) -> dict[str, Any]:
        try:
            return super().enum_schema(schema)
        except (PydanticSerializationError, UnicodeError):  # JSON cannot represent a member
            return {}

    def generate_definitions(self, inputs: Any) -> Any:
        self._definitions = [one for *_, schema in inputs for one in schema.get("definitions", ())]
        return super().generate_definitions(inputs)

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Include the default only if its JSON validates to it, as a generated client sends it.

        It does not for a secret, which is written as asterisks, or if the default is not of the field's type.
        """
        described = super().default_schema(schema)
        if "default" in described and not self._stands_for(described["default"], schema):
            del described["default"]
        return described

    def _stands_for(self, described: Any, schema: Any) -> bool:
        inner: Any = {"type": "definitions", "schema": schema["schema"], "definitions": self._definitions}
        try:
            validated = SchemaValidator(inner).validate_json(json.dumps(described))
            return bool(validated == schema["default"])
        except Exception:  # noqa: BLE001 - any error of a custom validator or comparison
            return False

    def encode_default(self, dft: Any) -> Any:
        """Raises PydanticSerializationError if JSON cannot represent a default, which the schema then omits."""
        default = super().encode_default(dft)
        try:
            json.dumps(default, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as exc:
            raise PydanticSerializationError(f"{dft!r} is no JSON") from exc
        if _has_local_time(dft):
            raise PydanticSerializationError(f"{dft!r} has no offset, which the formats date-time and time require")
        return default


def _has_local_time(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_local_time, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_local_time, value))
    if isinstance(value, BaseModel):
        return _has_local_time(dict(value))
    return isinstance(value, dt.datetime | dt.time) and value.tzinfo is None
