"""Example inputs, built from the examples, defaults, limits and types of a model's fields."""

import json
from collections.abc import Mapping
from typing import Any

from apps.contract.tasks import Input

Schema = Mapping[str, Any]

DEPTH_MAX = 20  # a recursive schema may have no finite example
_TEXT = "abc"
_FORMATS = {
    "base64url": "YWJj",
    "binary": "abc",
    "byte": "YWJj",
    "date": "2030-01-31",
    "date-time": "2030-01-31T12:00:00Z",
    "duration": "PT1H",
    "email": "abc@example.com",
    "ipv4": "192.0.2.1",
    "ipv4network": "192.0.2.0/24",
    "ipv6": "2001:db8::1",
    "json-string": "{}",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
}


def example_input(model: type[Input]) -> dict[str, Any] | None:
    """A valid input with only the required fields; None if none was found."""
    try:
        found = example(model.model_json_schema())
        model.__pydantic_validator__.validate_json(json.dumps(found))
    except Exception:  # noqa: BLE001 - no JSON schema, no valid example, or any error of a validator
        return None
    return dict(found)


def example(schema: Schema) -> Any:
    """A value for a JSON schema. It may be invalid: patterns and rules between fields are ignored."""
    return _Examples(schema.get("$defs", {})).of(schema)


class _Examples:
    """Examples of schemas that share definitions."""

    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions

    def of(self, schema: Schema, depth: int = 0) -> Any:
        if depth > DEPTH_MAX:
            return None
        given = [*schema.get("examples", ())[:1], *schema.get("enum", ())[:1]]
        given += [schema[name] for name in ("const", "default") if name in schema]
        if given:
            return given[0]
        instead = self._instead(schema)
        return self._made(schema, depth + 1) if instead is None else self.of(instead, depth + 1)

    def _instead(self, schema: Schema) -> Schema | None:
        """The target of a `$ref`, or the first alternative of `anyOf`, `oneOf` or `allOf`."""
        if "$ref" in schema:
            found: Schema = self._definitions[schema["$ref"].rpartition("/")[2]]
            return found
        return next((schema[name][0] for name in ("anyOf", "oneOf", "allOf") if schema.get(name)), None)

    def _made(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            properties = schema.get("properties", {})
            return {name: self.of(properties[name], depth) for name in schema.get("required", ())}
        if kind == "array":
            parts = [self.of(part, depth) for part in schema.get("prefixItems", ())]
            missing = schema.get("minItems", 0) - len(parts)
            return parts + [self.of(schema.get("items") or {}, depth) for _ in range(missing)]
        if "contentSchema" in schema:
            return json.dumps(self.of(schema["contentSchema"], depth))
        make = {"boolean": _true, "null": _null, "integer": _number, "number": _number}.get(str(kind), _text)
        return make(schema)


def _true(_: Schema) -> bool:
    return True


def _null(_: Schema) -> None:
    return None


def _text(schema: Schema) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return _TEXT.ljust(schema.get("minLength", 0), "c")[: schema.get("maxLength")]


def _number(schema: Schema) -> Any:
    """The smallest allowed number, else the largest if it is below the step, else the step (1 by default)."""
    step = schema.get("multipleOf", 1)
    if "minimum" in schema:
        return schema["minimum"] + -schema["minimum"] % step
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + step - schema["exclusiveMinimum"] % step
    if schema.get("maximum", step) < step:
        return schema["maximum"] - schema["maximum"] % step
    if schema.get("exclusiveMaximum", step + 1) <= step:
        return schema["exclusiveMaximum"] - (schema["exclusiveMaximum"] % step or step)
    return step
