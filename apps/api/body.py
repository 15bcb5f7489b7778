"""What comes in: headers, the body's type and size, and the inputs it describes."""

from typing import Annotated, Any

from fastapi import Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)

from apps.api import errors
from apps.contract.tasks import Input, Registry, input_union

BATCH_MAX = 1000
# Told to a client of an invalid input; more would repeat themselves.
ERRORS_MAX = 10


def one_header(request: Request, name: str) -> str | None:
    """A header that may be sent once. Raises the 400 problem where it was sent twice."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise errors.malformed(f"the header {name} was sent {len(values)} times")
    return values[0] if values else None


async def read_json(request: Request, limit_bytes: int) -> bytes:
    """The body, never more of it in memory than the limit. Raises the 400, 413 and 415 problems."""
    media_type, *parameters = (one_header(request, "content-type") or "").lower().split(";")
    charset = {"charset=utf-8", 'charset="utf-8"'}
    if media_type.strip() != "application/json" or {parameter.strip() for parameter in parameters} - charset:
        raise errors.not_json()
    declared = one_header(request, "content-length") or "0"
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
        raise _problem(exc) from None


def batch_model(tasks: Registry) -> type[BaseModel]:
    """The model of a batch of inputs, each judged by itself: an input, or the ValidationError that says why not."""

    def judge(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as exc:
            return exc

    element: Any = Annotated[input_union(tasks), WrapValidator(judge)]
    fields: Any = {"tasks": (list[element], Field(min_length=1, max_length=BATCH_MAX))}
    model: type[BaseModel] = create_model("Batch", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def parse_batch(model: type[BaseModel], body: bytes) -> list[Input | errors.Problem]:
    """The inputs of a batch, or the problem of each that is none. Raises as `parse_input`."""
    try:
        batch: Any = model.model_validate_json(body)
    except ValidationError as exc:
        raise _problem(exc) from None
    return [_problem(one) if isinstance(one, ValidationError) else one for one in batch.tasks]


def _problem(exc: ValidationError) -> errors.Problem:
    """What is wrong with a body, for its sender."""
    found = exc.errors(include_url=False, include_input=False, include_context=False)[:ERRORS_MAX]
    if found[0]["type"] == "json_invalid":
        return errors.malformed(found[0]["msg"])
    return errors.invalid([{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in found])
