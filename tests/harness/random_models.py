"""Random models and inputs, for tests of properties that must hold for every model of a team.

A model is built from a specification of plain data, so that the API, the worker and the test build the same model.
Property tests use the random generator of hypothesis; tests with servers use a seeded one.
"""

import dataclasses
import datetime as dt
import enum
import ipaddress
import json
import re
import uuid
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AliasChoices,
    AliasPath,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    RootModel,
    SecretBytes,
    SecretStr,
    StringConstraints,
    computed_field,
    create_model,
    field_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from apps.contract.tasks import Input, Registry, TaskSpec, registry
from tests.harness.simple_tasks import WORK_QUEUE, Output

Text = Callable[[Random], str]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float
    chip: SecretStr = SecretStr("none")


class Inner(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")
    some_text: str
    some_bytes: bytes = b"\xff"
    when: dt.datetime | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.some_text)


class Numbers(RootModel[list[float]]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: Decimal = Decimal("0.10")


class Typed(TypedDict):
    a: int
    b: bytes


class Node(BaseModel):
    value: float
    children: "list[Node]" = []


def _any_of(*texts: str) -> Text:
    return lambda random: random.choice(texts)


def _text(random: Random) -> str:
    characters = ["a", "B", " ", "é", "\u2028", "東", "\U0001f600", '"', "\\", "/", "\x7f", "'", "\n", "\x00", "<", "-"]
    text = "".join(random.choice(characters) for _ in range(random.randrange(6)))
    return json.dumps(text, ensure_ascii=random.random() < 0.5)


def _int(random: Random) -> str:
    number = random.choice([0, 1, -1, 2**53 + 1, 2**63, -(2**64), 10**40, random.randrange(-1000, 1000)])
    return random.choice([str(number), str(number), f'"{number}"', f"{number % 1000}.0", "-0", "1e2", "9" * 4000])


_float = _any_of("0.1", "-0.0", "-0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "3", '"2.50"',
                 '"nan"', "5e-324", "1.7976931348623157e308", "0.30000000000000004", "2e20")  # fmt: skip
_decimal = _any_of(
    "1.10", '"1.10"', "1e3", '"1E+3"', '"-0.00"', "3", '"NaN"', "0.1", '"12345678901234567890.1234567890"'
)
_datetime = _any_of('"2030-01-31T12:00:00Z"', '"2030-01-31T12:00:00.123456789+02:00"', '"2030-01-31"', "1893456000",
                    "1893456000.25", '"1893456000000"', '"2030-01-31T12:00"')  # fmt: skip
_day = _any_of('"2030-01-31"', "1893456000", '"2030-01-31T00:00:00"', '"x"')
_span = _any_of('"PT1H0.5S"', "3600", "0.1", '"-P1DT2H"', '"12:30:00.000001"')
_id = _any_of('"7c9e6679-7425-40de-944b-e07fc1f90ae7"', '"{7C9E6679-7425-40DE-944B-E07FC1F90AE7}"', '"x"')
_nested = _any_of("[" * 60 + "]" * 60, '{"a": ' * 50 + "1.0" + "}" * 50, '{"a": 1, "a": 1.0, "": [null, -0.0, 1e400]}',
                  '"\\ud83d\\ude00"', "12345678901234567890123", "null", "[NaN]", "5", "true")  # fmt: skip
_inner = _any_of('{"someText": "a"}', '{"some_text": "b", "someBytes": "c", "more": {"x": 1e400}}',
                 '{"someText": "a", "when": "2030-01-31T12:00:00Z", "length": 5}', '{"someText": 1}')  # fmt: skip
_pet = _any_of(
    '{"kind": "cat"}',
    '{"kind": "dog", "weight": Infinity, "chip": "1234"}',
    '{"kind": "cat", "kind": "dog", "weight": 1}',
)
_tree = _any_of('{"value": -0.0, "children": [{"value": 1e400}, {"value": 1, "children": []}]}', '{"value": "nan"}')

KINDS: dict[str, tuple[Any, Text]] = {
    "any": (Any, _nested),
    "base64": (Base64Bytes, _any_of('"/w=="', '"YWJj"', '"!"')),
    "bool": (bool, _any_of("true", "false", '"yes"', "1", "0.0")),
    "bytes": (bytes, _any_of('"YWJj"', '"_-8="', '"6162"', '"é"', '"\\u0000"', '""')),
    "bytesize": (ByteSize, _any_of('"1.5 KiB"', "1024")),
    "choice": (Literal[1, "two", True], _any_of("1", '"two"', "true")),
    "colour": (Colour, _any_of('"red"', '"green"')),
    "date": (dt.date, _day),
    "datetime": (dt.datetime, _datetime),
    "decimal": (Decimal, _decimal),
    "decimals": (dict[str, Decimal], _any_of('{"a": 1.10, "b": "1.10", "a": 2}', "{}")),
    "float": (float, _float),
    "inner": (Inner, _inner),
    "int": (int, _int),
    "int or text": (int | str, _any_of("1", '"1"', "1.0", '"a"')),
    "integer keys": (dict[int, float], _any_of('{"1": 1, "2": NaN}', '{"01": -0.0}')),
    "ip": (ipaddress.IPv4Address | ipaddress.IPv6Network, _any_of('"192.0.2.1"', '"2001:db8::/32"', "3221225985")),
    "json": (Json[list[float]], _any_of('"[1e400, NaN]"', '"[]"')),
    "json value": (JsonValue, _nested),
    "level": (Level, _any_of("1", '"2"', "2.0")),
    "number or float": (int | float, _any_of("1", "1.0", "-0.0", '"1"', "1e400", "123456789012345678901234567890")),
    "numbers": (Numbers, _any_of("[1, 2.5, NaN, -0.0]", "[]")),
    "optional": (float | None, _any_of("null", "NaN", "0")),
    "path": (Path, _any_of('"a/../b"', '""')),
    "pattern": (re.Pattern[str], _any_of('"a+"', '"("')),
    "pet": (Annotated[Cat | Dog, Field(discriminator="kind")], _pet),
    "pets": (list[Cat | Dog], _any_of('[{"kind": "dog", "weight": 1e400}, {"kind": "cat"}]', "[]")),
    "point": (Point, _any_of('{"x": 1}', '{"x": "1", "y": 0.100}')),
    "secret": (SecretStr, _text),
    "secret bytes": (SecretBytes, _any_of('"s3cret"', '"é"')),
    "set": (set[int], _any_of("[3, 1, 2, 1]", "[]")),
    "shouted": (Annotated[str, StringConstraints(to_upper=True, strip_whitespace=True)], _text),
    "small": (Annotated[int, Field(gt=0, lt=10)], _int),
    "strict time": (Annotated[dt.datetime, Field(strict=True)], _datetime),
    "text": (str, _text),
    "time": (dt.time, _any_of('"12:00:00.5Z"', "3600")),
    "timedelta": (dt.timedelta, _span),
    "tree": (Node, _tree),
    "tuple": (tuple[int, str, float], _any_of('[1, "a", NaN]', "[1]")),
    "typed": (Typed, _any_of('{"a": 1, "b": "YWJj"}', '{"a": 1}')),
    "url": (AnyUrl, _any_of('"HTTP://Example.com:80/ä?q=1"', '"x"')),
    "uuid": (uuid.UUID, _id),
}
CONFIGS: dict[str, ConfigDict] = {
    "allow": {"extra": "allow"},
    "base64": {"val_json_bytes": "base64", "ser_json_bytes": "base64"},
    "by name": {"populate_by_name": True},
    "camel": {"alias_generator": lambda name: name if name == "task" else to_camel(name)},
    "coerce": {"coerce_numbers_to_str": True},
    "deferred": {"defer_build": True},
    "enum values": {"use_enum_values": True},
    "finite": {"allow_inf_nan": False},
    "forbid": {"extra": "forbid"},
    "hex": {"val_json_bytes": "hex", "ser_json_bytes": "hex"},
    "ignore": {"extra": "ignore"},
    "inf strings": {"ser_json_inf_nan": "strings", "ser_json_timedelta": "float", "ser_json_temporal": "milliseconds"},
    "lower": {"str_to_lower": True, "str_strip_whitespace": True},
    "strict": {"strict": True},
    "validated defaults": {"validate_default": True},
}
FACTORIES: dict[str | None, Callable[[], Any]] = {"factory": list, "uuid4": uuid.uuid4}
NAMES = ("wait", "json", "some_name", "x_", "größe", "help", "self_", "data", "model", "items")


class _Stamped(Input):
    """Has a computed field and a custom validator; both depend only on the JSON."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def stamp(self) -> str:
        return f"of {self.task}"

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        return value.removesuffix("!") if isinstance(value, str) else value


class FieldSpec(NamedTuple):
    """A field of a generated model; an alias is a string, or a list of choices, of which one may be a path."""

    name: str
    kind: str
    alias: Any = None
    default: str | None = None


class ModelSpec(NamedTuple):
    """A specification of a generated model."""

    task: str
    fields: list[FieldSpec]
    config: list[str]
    stamped: bool


def random_spec(random: Random, task: str) -> ModelSpec:
    """Return a random specification."""
    names = random.sample(NAMES, random.randrange(1, 5))
    fields = []
    for name in names:
        kind = random.choice(sorted(KINDS))
        alias = random.choice([None, None, f"{name}-Ä b", [f"{name}.1", f"{name}2"], [[f"{name}List", 1], name]])
        default = random.choice([None, None, "null", '"text"', "[]", "factory", KINDS[kind][1](random)])
        fields.append(FieldSpec(name, kind, alias, default))
    config = random.sample(sorted(CONFIGS), random.randrange(4))
    return ModelSpec(task, fields, config, random.random() < 0.5)


def decoded_spec(raw: Any) -> ModelSpec:
    """Return the specification from its decoded JSON."""
    task, fields, config, stamped = raw
    return ModelSpec(task, [FieldSpec(*field) for field in fields], config, stamped)


def made_model(spec: ModelSpec) -> type[Input]:
    """Return the model of a specification."""
    config: dict[str, Any] = {}
    for name in spec.config:
        config |= CONFIGS[name]
    fields: Any = {"task": (Literal[spec.task], ...)}
    for field in spec.fields:
        more: dict[str, Any] = {} if field.alias is None else {"validation_alias": _alias(field.alias)}
        if field.default in FACTORIES:
            more["default_factory"] = FACTORIES[field.default]
        elif field.default is not None:
            more["default"] = _python(field.default)
        fields[field.name] = (KINDS[field.kind][0], Field(**more))
    with warnings.catch_warnings(action="ignore"):  # of field names that are also attributes of a model, such as `json`
        made: type[Input] = _created(spec, config, fields)
        return made


def _created(spec: ModelSpec, config: dict[str, Any], fields: Any) -> Any:
    base: Any = create_model("Base", __base__=_Stamped if spec.stamped else Input)
    base.model_config = ConfigDict(**base.model_config | config)  # type: ignore[typeddict-item]
    return create_model(f"Made_{spec.task}", __base__=base, **fields)


def _alias(alias: Any) -> str | AliasChoices:
    if isinstance(alias, str):
        return alias
    return AliasChoices(*(one if isinstance(one, str) else AliasPath(*one) for one in alias))


def _python(text: str) -> Any:
    return json.loads(text, parse_int=lambda digits: digits if len(digits) > 1000 else int(digits))


def random_text(random: Random, spec: ModelSpec) -> str:
    """Return JSON for the model, valid or not: members in random order, some of them twice."""
    members = [f'"task"{_space(random)}:{_space(random)}"{spec.task}"']
    for field in spec.fields:
        if field.default is not None and random.random() < 0.3:
            continue
        value = KINDS[field.kind][1](random)
        names = [name for name in _names(field) if name]
        member = f"{random.choice(names)}:{_space(random)}{value}"
        if isinstance(field.alias, list) and isinstance(field.alias[0], list) and random.random() < 0.7:
            member = f"{json.dumps(field.alias[0][0])}: [null, {value}]"
        members.append(member)
        if random.random() < 0.1:
            members.append(f"{random.choice(names)}: {KINDS[field.kind][1](random)}")
    if random.random() < 0.15:
        members.append('"unknown": [1e400, {"task": "x"}, "]}"]')
    random.shuffle(members)
    between = f"{_space(random)},{_space(random)}"
    return f"{{{_space(random)}{between.join(members)}{_space(random)}}}"


def _names(field: FieldSpec) -> list[str]:
    aliases = [field.alias] if isinstance(field.alias, str) else field.alias or []
    names = [one for one in aliases if isinstance(one, str)] or [field.name, to_camel(field.name)]
    return [json.dumps(name, ensure_ascii=bool(index % 2)) for index, name in enumerate([*names, field.name])]


def _space(random: Random) -> str:
    return random.choice(["", "", " ", "\n\t", "\r\n"])


def exact(value: Any) -> str:
    """Return a text that is equal for two values only if all types, bits and orders are equal; `==` is less strict."""
    for types, describe in _EXACT.items():
        if isinstance(value, types):
            return f"{type(value).__name__}({describe(value)})"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}{exact(vars(value))}"
    return f"{type(value).__name__} {value!a}"


def _exact_model(value: BaseModel) -> str:
    fields = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    return ", ".join([*(f"{name}={exact(one)}" for name, one in fields.items()), str(sorted(value.model_fields_set))])


_EXACT: dict[Any, Callable[[Any], str]] = {
    BaseModel: _exact_model,
    dict: lambda value: ", ".join(f"{exact(name)}: {exact(one)}" for name, one in value.items()),
    (list, tuple): lambda value: ", ".join(map(exact, value)),
    (set, frozenset): lambda value: ", ".join(sorted(map(exact, value))),
    (SecretStr, SecretBytes): lambda value: ascii(value.get_secret_value()),
}


def made_tasks(specs: list[ModelSpec]) -> Registry:
    """Return the tasks of generated models."""
    return registry(
        *(
            TaskSpec(
                name=f"{WORK_QUEUE}:{spec.task}", input=made_model(spec), output=Output, hard_limit_s=60
            )
            for spec in specs
        )
    )  # fmt: skip
