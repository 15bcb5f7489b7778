"""Models whose validation is not pure are refused at start, with a sentence that names the field."""

import dataclasses
import datetime as dt
import functools
import gc
import itertools
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    FutureDate,
    FutureDatetime,
    ImportString,
    Json,
    PastDate,
    PastDatetime,
    PrivateAttr,
    create_model,
)
from typing_extensions import TypedDict

from apps.api.app import create_app
from apps.contract.model_checks import obstacles, require_pure
from apps.contract.settings import ApiSettings, WorkerSettings, load
from apps.contract.tasks import Input, Registry, TaskSpec, registry
from apps.worker import celery_app as worker_app
from tests.harness.simple_tasks import WORK_QUEUE, Output
from tests.unit.test_settings import GOOD


class Nested(BaseModel):
    when: PastDate


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    inner: "Nested | None" = None


class Tree(BaseModel):
    children: "list[Tree]" = []
    number: uuid.UUID = Field(default_factory=uuid.uuid4)


@dataclasses.dataclass
class Plain:
    made: float = dataclasses.field(default_factory=time.time)


@pydantic.dataclasses.dataclass
class Pydantic:
    a: str
    b: str = Field(default_factory=lambda data: data["a"] + secrets.token_hex(4))


class Typed(TypedDict, total=False):
    when: FutureDate


class Pair(NamedTuple):
    first: int
    when: FutureDatetime


class Tagged(BaseModel):
    kind: Literal["default"]  # "default" is also a type of core schemas
    when: PastDate


class Other(BaseModel):
    kind: Literal["other"]


def model(annotation: Any, default: Any = ...) -> type[Input]:
    fields: Any = {"task": (Literal["m"], ...), "name": (str, ...), "x": (annotation, default)}
    return create_model("M", __base__=Input, **fields)


def tasks(input_: type[Input]) -> Registry:
    return registry(TaskSpec(name=f"{WORK_QUEUE}:m", input=input_, output=Output, hard_limit_s=1))


_PAST: Any = PastDate
CLOCKS = [
    PastDate,
    FutureDate,
    PastDatetime,
    FutureDatetime,
    Annotated[dt.date, _PAST],
    Nested,
    Deferred,
    Typed,
    Pair,
]
# type checkers do not accept these expressions as types
WRAPPINGS: list[Callable[[Any], Any]] = [
    lambda kind: kind | None,
    lambda kind: list[kind],  # type: ignore[valid-type]
    lambda kind: dict[str, tuple[int, kind]],  # type: ignore[valid-type]
    lambda kind: int | set[Annotated[kind, "noted"]],  # type: ignore[valid-type]
    lambda kind: Json[kind],  # type: ignore[valid-type,misc]
    lambda kind: create_model("Wrapped", inner=(kind, ...)),
    lambda kind: Annotated[Tagged | Other, Field(discriminator="kind")] | kind,
]


@given(st.sampled_from(CLOCKS), st.lists(st.sampled_from(WRAPPINGS), max_size=3))
def test_comparison_with_the_clock_is_found_at_any_depth(kind: Any, wrappings: list[Callable[[Any], Any]]) -> None:
    for wrap in wrappings:
        kind = wrap(kind)
    assert any("compared with the clock" in sentence for sentence in obstacles(model(kind)))


def test_members_of_a_tagged_union_are_searched() -> None:
    union = Annotated[Tagged | Other, Field(discriminator="kind")]
    assert ["Tagged.when" in sentence for sentence in obstacles(model(union))] == [True]


FACTORIES = [
    uuid.uuid4,
    uuid.uuid1,
    dt.datetime.now,
    functools.partial(dt.datetime.now, dt.UTC),
    dt.date.today,
    functools.partial(dt.date.today),
    lambda: f"{dt.datetime.now(dt.UTC):%Y}",
    lambda: dt.datetime.fromtimestamp(int(time.time()), dt.UTC).date(),
    lambda: time.localtime().tm_year,
    os.getpid,
    os.getcwd,
    os.cpu_count,
    lambda: time.strftime("%Y-%m-%d"),
    time.asctime,
    lambda: Path(__file__).read_text().count("x"),
    random.random,
    secrets.token_hex,
    itertools.count().__next__,
    lambda: {"nested": [uuid.uuid4()]},
    lambda data: data["name"] + str(uuid.uuid4()),
    lambda data: (data["name"], dt.datetime.now(dt.UTC).date()),
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_default_factory_with_varying_values_is_refused(factory: Callable[..., Any]) -> None:
    (sentence,) = obstacles(model(Any, Field(default_factory=factory)))
    assert sentence.startswith("M.x has a default_factory that ")


@pytest.mark.parametrize(
    "factory",
    [
        list,
        dict,
        object,
        functools.partial(dict, a=1),
        lambda: float("nan"),
        lambda: {"a", "b"},
        lambda: Path("a") / "b",
        lambda: dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
        lambda: dt.datetime.strptime("2030", "%Y"),  # noqa: DTZ007 - strptime does not read the clock
        lambda data: data["name"].upper(),
        len,
    ],
)
def test_default_factory_with_constant_values_is_accepted(factory: Callable[..., Any]) -> None:
    assert list(obstacles(model(Any, Field(default_factory=factory)))) == []


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (Tree, "Tree.number has a default_factory that gives two different values"),
        (list[Plain], "Plain.made has a default_factory that calls time"),
        (Pydantic, "Pydantic.b has a default_factory that gives two different values"),
        (Iterable[int], "M.x is validated only when the task iterates"),
        (FilePath, "M.x is looked up in the file system"),
        (list[DirectoryPath], "M.x is looked up in the file system"),
        (list[ImportString], "M.x is imported"),  # type: ignore[type-arg]
        (Annotated[int, Field(default_factory=lambda data: data["missing"])], "M.x has a default_factory that cannot"),
    ],
)
def test_impure_type_is_named(annotation: Any, says: str) -> None:
    (sentence,) = obstacles(model(annotation))
    assert sentence.startswith(says)


@pytest.mark.parametrize("annotation", [AwareDatetime, dt.datetime, dt.date | None, Path, Json[list[int]], type, Other])
def test_pure_type_is_accepted(annotation: Any) -> None:
    assert list(obstacles(model(annotation))) == []


def test_default_factory_is_called_with_sample_values_of_earlier_fields() -> None:
    class Sampled(Input):
        task: Literal["m"]
        size: Annotated[int, Field(gt=7, multiple_of=4, alias="theSize")]
        tags: Annotated[list[str], Field(min_length=2)]
        inner: Other
        late: str = Field(default_factory=lambda data: f"{data['size']} {data['tags']} {data['inner'].kind}")

    assert list(obstacles(Sampled)) == []


def test_private_attributes_may_have_impure_defaults() -> None:
    class Private(Input):
        task: Literal["m"]
        _token: str = PrivateAttr(default_factory=secrets.token_hex)

    assert list(obstacles(Private)) == []


def test_alias_for_the_field_task_is_refused() -> None:
    class Shouting(Input):
        model_config = ConfigDict(alias_generator=str.upper)
        task: Literal["m"]

    class Mended(Shouting):
        task: Literal["m"] = Field(alias="task")
        width: int

    assert ['give it Field(alias="task")' in sentence for sentence in obstacles(Shouting)] == [True]

    class ByName(Shouting):
        model_config = ConfigDict(populate_by_name=True)

    class Chosen(Input):
        task: Literal["m"] = Field(validation_alias=AliasChoices("kind", "task"))

    class Elsewhere(Input):
        task: Literal["m"] = Field(validation_alias=AliasPath("about", "task"))

    assert [list(obstacles(good)) for good in (Mended, ByName, Chosen)] == [[], [], []]
    assert ["give it Field" in sentence for sentence in obstacles(Elsewhere)] == [True]


def test_clock_read_by_the_garbage_collector_is_not_attributed_to_a_factory() -> None:
    """As hypothesis and tracing libraries do, a callback of the garbage collector reads the clock."""

    def callback(*_: object) -> None:
        time.perf_counter()

    gc.callbacks.append(callback)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert list(obstacles(model(Any, Field(default_factory=lambda: [[] for _ in range(100)])))) == []
        assert gc.isenabled()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)


def test_checking_a_factory_keeps_the_active_profiler() -> None:
    import sys  # noqa: PLC0415 - only this test reads its state

    def profiler(*_: object) -> None: ...

    sys.setprofile(profiler)
    try:
        list(obstacles(model(Any, Field(default_factory=list))))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_api_and_worker_do_not_start_with_an_impure_model() -> None:
    impure = tasks(model(PastDate))
    says = f"^Task {WORK_QUEUE}:m cannot be accepted: M.x is compared with the clock, [^.]*[.]$"
    with pytest.raises(SystemExit, match=says):
        require_pure(impure)
    with pytest.raises(SystemExit, match=says):
        create_app(load(ApiSettings, GOOD), impure)
    with pytest.raises(SystemExit, match=says):
        worker_app.create_app(load(WorkerSettings, GOOD), impure)
