"""The OpenAPI document is valid for a team's own models, whatever their names and types."""

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    computed_field,
    create_model,
)
from pydantic.alias_generators import to_camel

from apps.api.app import create_app
from apps.api.body import batch_model
from apps.contract.settings import ApiSettings, load
from apps.contract.tasks import Input, TaskSpec, registry
from tests.harness.simple_tasks import TASKS, NamedInput, Output
from tests.unit.test_settings import GOOD

T = TypeVar("T")


def named(name: str, **fields: Any) -> type[BaseModel]:
    """Return a model with this name."""
    return type(name, (BaseModel,), {"__annotations__": fields, "__module__": __name__})


def taking(task: str, *types: Any) -> type[Input]:
    """Return an input with a field of each of these types."""
    fields = {"task": Literal[task]} | {f"field_{number}": type_ for number, type_ in enumerate(types)}
    return type(f"Input{task.title()}", (Input,), {"__annotations__": fields, "__module__": __name__})


def document(*inputs: type[Input]) -> dict[str, Any]:
    """Return the API's document with a task for each of the inputs."""
    specs = [
        TaskSpec(
            name=f"celery:{input_.model_fields['task'].annotation.__args__[0]}",  # type: ignore[union-attr]
            input=input_, output=Output, hard_limit_s=60,
        )
        for input_ in inputs
    ]  # fmt: skip
    made = create_app(load(ApiSettings, GOOD), registry(*specs)).openapi()
    text = json.dumps(made, allow_nan=False)  # encoded as for a client
    sent: dict[str, Any] = json.loads(text)
    return sent


def assert_valid(made: dict[str, Any]) -> None:
    assert made["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(made).iter_errors()] == []
    assert "itemSchema" not in json.dumps(made)


def assert_titles_differ(made: dict[str, Any]) -> None:
    """Client generators name their classes after the titles of the components."""
    titles = [schema.get("title", name) for name, schema in made["components"]["schemas"].items()]
    assert len(titles) == len(set(titles))


class Resize(NamedInput):
    task: Literal["resize"]
    width: Annotated[int, Field(gt=0, examples=[640])]


class Aliased(Input):
    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel), extra="forbid")
    task: Literal["aliased"]
    source_file: str
    depth: Annotated[int, Field(alias="the depth!")]
    either: Annotated[str, Field(validation_alias="$ref")] = "a"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = math.inf


class Square(BaseModel):
    kind: Literal["square"]
    side: float = math.nan
    inside: list["Circle | Square"] = Field(default_factory=list)


class Draw(Input):
    task: Literal["draw"]
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    shapes: dict[str, Circle | Square] = Field(default_factory=dict)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Typed(Input):
    task: Literal["typed"]
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    day: date | None = None
    price: Decimal = Decimal("1.10")
    id: UUID = UUID(int=1)
    data: bytes = b"\xff"
    secret: SecretStr = SecretStr("x")
    colour: Colour = Colour.RED
    pair: tuple[int, str] = (1, "a")
    numbers: frozenset[int] = frozenset({1})
    pattern: Annotated[str, Field(pattern=r"^\d+$")] = "1"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return 1


class Point:
    """A class that no library knows, which a validator makes from JSON."""

    def __init__(self, text: str) -> None:
        self.x, self.y = text.split(",")


class Arbitrary(Input):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    task: Literal["arbitrary"]
    point: Annotated[Point, BeforeValidator(Point)] = Point("1,2")


class Box(BaseModel, Generic[T]):
    content: T


def test_document_of_the_test_tasks_is_valid() -> None:
    assert_valid(create_app(load(ApiSettings, GOOD), TASKS).openapi())


@pytest.mark.parametrize("model", [Resize, Aliased, Draw, Typed, Arbitrary])
def test_document_with_one_task_is_valid(model: type[Input]) -> None:
    made = document(model)
    assert_valid(made)
    body = made["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": f"#/components/schemas/{model.__name__}"}


def test_document_with_different_tasks_is_valid() -> None:
    assert_valid(document(Resize, Aliased, Draw, Typed, Arbitrary))


def test_document_with_many_tasks_is_valid() -> None:
    made = document(*(taking(f"t{number}", str, Box[int]) for number in range(60)))
    assert_valid(made)
    body = made["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == len(body["discriminator"]["mapping"]) == 60


OWN = ("Task", "Accepted", "AcceptedInput", "Problem", "Outcomes", "Event", "TaskStatus", "Batch")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("make", [lambda model: model, list.__class_getitem__, Box.__class_getitem__])
def test_model_with_the_name_of_our_component_is_renamed(name: str, make: Callable[[Any], Any]) -> None:
    theirs = named(name, mine=int)
    made = document(taking("one", make(theirs)), taking("two", str))
    assert_valid(made)
    schemas = made["components"]["schemas"]
    ours = create_app(load(ApiSettings, GOOD), TASKS).openapi()["components"]["schemas"]
    assert [*schemas[f"{name}Model"]["properties"]] == ["mine"]
    assert name == "Batch" or schemas[name] == ours[name]


def test_input_with_the_name_of_our_component_is_renamed() -> None:
    inputs = [type(name, (taking(f"t{number}", int),), {"__module__": __name__}) for number, name in enumerate(OWN)]
    made = document(*inputs)
    assert_valid(made)
    mapping = made["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]["discriminator"]
    assert set(mapping["mapping"].values()) == {f"#/components/schemas/{name}Model" for name in OWN}
    assert_titles_differ(made)


def test_several_models_of_one_name_get_different_names() -> None:
    types = [named("Task", a=int), named("Task", b=int), named("TaskModel", c=int), named("Größe", d=int)]
    made = document(taking("one", *types))
    assert_valid(made)
    properties = {name for schema in made["components"]["schemas"].values() for name in schema.get("properties", {})}
    assert {"a", "b", "c", "d"} <= properties
    assert_titles_differ(made)


def described(type_: Any, default: object) -> dict[str, Any]:
    """Return the description of a field with this type and default in a valid document."""
    fields: dict[str, Any] = {"task": (Literal["defaulted"], ...), "field": (type_, default)}
    made = document(create_model("Defaulted", __base__=Input, **fields))
    assert_valid(made)
    field: dict[str, Any] = made["components"]["schemas"]["Defaulted"]["properties"]["field"]
    return field


class Recursive(BaseModel):
    next: "Recursive | None" = None


@pytest.mark.parametrize(
    ("type_", "default"),
    [
        (int, None),
        (list[str], None),
        (Annotated[str, Field(min_length=3)], ""),
        (Literal["a"], "b"),
        (SecretStr, SecretStr("hidden")),
        (datetime, datetime(2026, 1, 1)),  # noqa: DTZ001 - a naive datetime is intended
        (dict[str, list[time] | None], {"a": [time(1)]}),
        (str, "caf\udce9"),
        (Recursive, "none"),
    ],
)
def test_default_that_json_cannot_express_is_left_out(type_: Any, default: object) -> None:
    assert "default" not in described(type_, default)


@pytest.mark.parametrize(
    ("type_", "default"),
    [
        (Colour, Colour.RED),
        (Recursive | None, None),
        (Recursive, Recursive(next=Recursive())),
        (Decimal, Decimal("1.1")),
    ],
)
def test_other_default_is_described(type_: Any, default: object) -> None:
    assert TypeAdapter(type_).validate_json(json.dumps(described(type_, default)["default"])) == default


def test_unencodable_descriptions_and_examples_do_not_break_the_document() -> None:
    class Odd(Input):
        task: Literal["odd"]
        number: Annotated[float, Field(description="caf\udce9", examples=[math.nan])]
        member: Enum("Member", {"A": b"\xff", "B": object()})  # type: ignore[valid-type]

    made = document(Odd)
    assert_valid(made)
    assert made["components"]["schemas"]["Odd"]["properties"]["number"]["description"] == r"caf\udce9"


NO_JSON: Any = object()


class Extra(BaseModel):
    model_config = ConfigDict(json_schema_extra={"x-a": NO_JSON, "x-b": {"c": [NO_JSON, 1]}, "examples": [NO_JSON]})
    number: int


@pytest.mark.parametrize(
    ("type_", "described"),
    [
        (Annotated[int, Field(json_schema_extra={"examples": [NO_JSON, 640], "x-a": NO_JSON})], {"examples": [640]}),
        (Annotated[float, Field(ge=math.nan, le=5)], {"maximum": 5}),
        (Annotated[float, Field(gt=-math.inf, lt=math.inf)], {}),
        (list[Annotated[float, Field(lt=math.nan)]], {"items": {"type": "number"}}),
        (dict[str, Annotated[float, Field(gt=math.nan)]], {"additionalProperties": {"type": "number"}}),
        (Extra, {}),
    ],
)
def test_example_or_bound_that_json_cannot_express_is_left_out(type_: Any, described: dict[str, Any]) -> None:
    made = document(taking("resize", type_))
    assert_valid(made)
    schemas = made["components"]["schemas"]
    found = schemas["InputResize"]["properties"]["field_0"]
    assert {name: found[name] for name in found if name not in {"title", "type", "$ref"}} == described
    if type_ is Extra:
        assert (schemas["Extra"]["x-b"], schemas["Extra"]["examples"]) == ({"c": [1]}, [])


def test_description_of_a_batch_equals_its_validation() -> None:
    described = create_app(load(ApiSettings, GOOD), TASKS).openapi()["components"]["schemas"]["Batch"]
    validated = batch_model(TASKS).model_json_schema(ref_template="#/components/schemas/{model}")
    validated["properties"]["tasks"].pop("title")
    assert described == {name: value for name, value in validated.items() if name != "$defs"}
