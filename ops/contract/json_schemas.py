"""Compares two JSON schemas: finds values that the later schema refuses, and values that only the later one accepts.

Both schemas are made by the same version of pydantic, so a keyword has the same meaning in both. A difference in a
keyword that is not listed here counts as narrower and as wider: an unknown change must not pass as harmless.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Schema = Mapping[str, Any]

# Keywords that do not affect validation. A changed default applies to queued tasks and to new tasks alike.
_WORDS = {"title", "description", "examples", "example", "default", "deprecated", "discriminator", "$defs", "summary"}
_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_CHOICES = ("anyOf", "oneOf")
_COMPARED = {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "$ref", *_CHOICES}
_DEPTH_MAX = 40


class Change(NamedTuple):
    """A difference: the later schema refuses values that the earlier accepts (`narrower`), or the reverse (`wider`)."""

    where: str
    effect: Literal["narrower", "wider"]
    text: str


class Comparison:
    """Compares schemas of two documents. References of a schema are resolved in its own document."""

    def __init__(self, earlier: Schema, later: Schema) -> None:
        self._earlier, self._later = earlier, later
        self._open: set[tuple[str, str]] = set()

    def changes(self, earlier: Any, later: Any, where: str) -> Iterator[Change]:
        """Every difference between two schemas. `where` is the path that the differences are reported with."""
        pair = (str(_reference(earlier)), str(_reference(later)))
        if pair != ("None", "None"):
            if pair in self._open:  # a recursive schema
                return
            self._open.add(pair)
        old, new = _resolved(earlier, self._earlier), _resolved(later, self._later)
        yield from self._object_changes(old, new, where)
        self._open.discard(pair)

    def _object_changes(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        if any(name in schema for schema in (old, new) for name in _CHOICES):
            yield from self._choice_changes(old, new, where)
            return
        yield from _value_changes(old, new, where)
        yield from _limit_changes(old, new, where)
        yield from self._property_changes(old, new, where)
        yield from self._part_changes("items", old, new, f"{where}[]")
        for name in sorted((old.keys() | new.keys()) - _WORDS - _COMPARED - _LOWER - _UPPER):
            if old.get(name) != new.get(name):
                text = f"{name} was {_said(old.get(name))} and is {_said(new.get(name))}"
                if name in new:
                    yield Change(where, "narrower", text)
                if name in old:
                    yield Change(where, "wider", text)

    def _choice_changes(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        before, after = _choices(old), _choices(new)
        for choice in before:
            if not any(self._takes_all_of(one, choice) for one in after):
                yield Change(where, "narrower", f"{_named(choice)} is no longer taken")
        back = Comparison(self._later, self._earlier)
        for choice in after:
            if not any(back._takes_all_of(one, choice) for one in before):
                yield Change(where, "wider", f"{_named(choice)} is taken")

    def _takes_all_of(self, later: Any, earlier: Any) -> bool:
        return not any(each.effect == "narrower" for each in self.changes(earlier, later, ""))

    def _property_changes(self, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        closed_before, closed_after = (schema.get("additionalProperties") is False for schema in (old, new))
        for name in sorted(before.keys() - after.keys()):
            effect: Literal["narrower", "wider"] = "narrower" if closed_after else "wider"
            yield Change(f"{where}.{name}", effect, "the field is gone")
        for name in sorted(after.keys() - before.keys()):
            yield Change(f"{where}.{name}", "wider" if closed_before else "narrower", "the field is new")
        for name in sorted(before.keys() & after.keys()):
            yield from self.changes(before[name], after[name], f"{where}.{name}")
        required, requires = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(requires - required):
            yield Change(f"{where}.{name}", "narrower", "the field is required")
        for name in sorted(required - requires):
            yield Change(f"{where}.{name}", "wider", "the field is no longer required")
        yield from self._part_changes("additionalProperties", old, new, f"{where}.*")

    def _part_changes(self, name: str, old: Schema, new: Schema, where: str) -> Iterator[Change]:
        before, after = old.get(name, True), new.get(name, True)
        if isinstance(before, bool) or isinstance(after, bool):
            if before != after:
                narrower = after is False or before is True
                yield Change(where, "narrower" if narrower else "wider", f"{name} was {before} and is {_said(after)}")
            return
        yield from self.changes(before, after, where)


def _value_changes(old: Schema, new: Schema, where: str) -> Iterator[Change]:
    """Changes of `type`, `const` and `enum`."""
    before, after = _types(old), _types(new)
    if before - after:
        yield Change(where, "narrower", f"the type was {_said(old.get('type'))} and is {_said(new.get('type'))}")
    if after - before:
        yield Change(where, "wider", f"the type was {_said(old.get('type'))} and is {_said(new.get('type'))}")
    listed, lists = _values(old), _values(new)
    gone = listed - lists if listed is not None and lists is not None else set()
    come = lists - listed if listed is not None and lists is not None else set()
    if gone or (listed is None and lists is not None):
        yield Change(where, "narrower", f"only {', '.join(sorted(lists or ()))} is taken")
    if come or (listed is not None and lists is None):
        yield Change(where, "wider", f"more than {', '.join(sorted(listed or ()))} is taken")


def _limit_changes(old: Schema, new: Schema, where: str) -> Iterator[Change]:
    for name in sorted((_LOWER | _UPPER) & (old.keys() | new.keys())):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        tighter = before is None or (after is not None and (after > before) == (name in _LOWER))
        yield Change(where, "narrower" if tighter else "wider", f"{name} was {_said(before)} and is {_said(after)}")


def _reference(schema: Any) -> str | None:
    return schema.get("$ref") if isinstance(schema, Mapping) else None


def _resolved(schema: Any, document: Schema) -> Schema:
    for _ in range(_DEPTH_MAX):
        reference = _reference(schema)
        if reference is None:
            break
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        schema = document
        for part in reference.removeprefix("#/").split("/"):
            schema = schema[part]
        schema = {**schema, **beside}
    return schema if isinstance(schema, Mapping) else {}


def _choices(schema: Schema) -> list[Any]:
    found = [choice for name in _CHOICES for choice in schema.get(name, ())]
    return found or [schema]


_ALL = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def _types(schema: Schema) -> frozenset[str]:
    given = schema.get("type")
    types = _ALL if given is None else frozenset([given] if isinstance(given, str) else given)
    return types | {"integer"} if "number" in types else types


def _values(schema: Schema) -> set[str] | None:
    if "const" in schema:
        return {json.dumps(schema["const"])}
    return {json.dumps(value) for value in schema["enum"]} if "enum" in schema else None


def _named(schema: Any) -> str:
    name = _reference(schema)
    return name.rpartition("/")[2] if name else _said({key: schema[key] for key in schema if key not in _WORDS})


def _said(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, sort_keys=True)
