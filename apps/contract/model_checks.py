"""Refuses models whose validation depends on anything but the JSON.

The API validates an input, and the worker validates the same JSON again, later and on another machine. Both get the
same value only if it depends on the JSON alone. The code of custom validators cannot be checked; all else can.
"""

import datetime as dt
import gc
import itertools
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from pydantic import AliasChoices
from pydantic._internal import _validators
from pydantic.json_schema import GenerateJsonSchema
from pydantic.types import PathType
from pydantic_core import SchemaValidator

from apps.contract.example import example
from apps.contract.tasks import Input, Registry

Schema = Mapping[str, Any]

_CHECKS_FILES = {PathType.validate_file, PathType.validate_directory, PathType.validate_new, PathType.validate_socket}
_IMPORTS = {_validators.import_string}
# Parts of a core schema that do not validate: descriptions, serialization, and constants.
_INERT = {"cls", "computed_fields", "config", "default", "expected", "members", "metadata", "serialization"}
# C functions, by module, whose result depends on the clock, the process or the machine. Two calls may agree.
_OUTSIDE = {
    "_io": {"open"},
    "io": {"open"},  # the module of `open` in Python 3.11
    "_socket": {"gethostname"},
    "posix": {"cpu_count", "getcwd", "getpid", "getppid", "listdir", "stat", "times", "uname"},
    "time": {
        "asctime",
        "ctime",
        "gmtime",
        "localtime",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "strftime",
        "time",
        "time_ns",
    },
}


def require_pure(tasks: Registry) -> None:
    """Raise SystemExit with one sentence if the worker could read an input differently than the API."""
    for spec in tasks.values():
        for sentence in obstacles(spec.input):
            raise SystemExit(f"Task {spec.name} cannot be accepted: {sentence}.")


def obstacles(model: type[Input]) -> Iterator[str]:
    """The reasons why API and worker may read a model differently, a sentence each."""
    if "task" not in _names_of_task(model):
        yield f'{model.__name__}.task has an alias, but inputs are told apart by "task": give it Field(alias="task")'
    model.model_rebuild()  # needed with defer_build; does nothing if the schema is complete
    whole: Any = model.__pydantic_core_schema__
    for node in _walk(whole, _Place(model.__name__, {})):
        if reason := _obstacle(node, whole):
            yield f"{node.place.name} {reason}"


def _names_of_task(model: type[Input]) -> set[str]:
    """The JSON names that the model accepts for `task`."""
    config, alias = model.model_config, model.model_fields["task"].validation_alias
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    names: set[str] = {"task"} if by_name or alias is None else set()
    if alias is not None and config.get("validate_by_alias") is not False:
        names |= set(map(str, alias.choices)) if isinstance(alias, AliasChoices) else {str(alias)}
    return names


class _Place(NamedTuple):
    """The position of a schema: its field, and the fields of the same model that are validated before it."""

    name: str
    before: Schema


class _Node(NamedTuple):
    schema: Schema
    place: _Place


def _walk(schema: Any, place: _Place) -> Iterator[_Node]:
    """A core schema and every schema inside of it. Source: pydantic_core.core_schema."""
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from _walk(part, place)
    if not isinstance(schema, Mapping):
        return
    if isinstance(schema.get("type"), str):
        yield _Node(schema, place)
    cls = schema.get("cls")
    inside = _Place(cls.__name__, {}) if isinstance(cls, type) else place
    for name, part in schema.items():
        if name == "fields":
            yield from _walk_fields(part, inside)
        elif name == "choices" and isinstance(part, Mapping):  # the keys are tags of a union, which may be any word
            yield from _walk(list(part.values()), inside)
        elif name not in _INERT:
            yield from _walk(part, inside)


def _walk_fields(fields: Any, model: _Place) -> Iterator[_Node]:
    # models and typed dictionaries have a dictionary of fields; dataclasses have a list of fields and one of names
    named = fields if isinstance(fields, Mapping) else {one["name"]: one for one in fields if isinstance(one, Mapping)}
    for index, (name, field) in enumerate(named.items()):
        before = dict(itertools.islice(named.items(), index))
        yield from _walk(field, _Place(f"{model.name}.{name}", before))


def _obstacle(node: _Node, whole: Schema) -> str | None:
    schema = node.schema
    if schema["type"] in {"date", "datetime"} and schema.get("now_op"):
        return "is compared with the clock, which has moved on when the worker reads it: compare it inside the task"
    if schema["type"] == "generator":
        return "is validated only when the task iterates over it, after it was accepted: use list[...]"
    function = schema.get("function")
    if isinstance(function, Mapping) and function.get("function") in _CHECKS_FILES:
        return "is looked up in the file system, which the API and the worker do not share: use Path"
    if isinstance(function, Mapping) and function.get("function") in _IMPORTS:
        return "is imported, from packages that the API and the worker do not share: use str and import it in the task"
    if "default_factory" in schema:
        return _factory_obstacle(node, whole)
    return None


def _factory_obstacle(node: _Node, whole: Schema) -> str | None:
    factory = _in_python(node.schema["default_factory"])
    try:
        given = [_sample(node.place.before, whole)] if node.schema.get("default_factory_takes_data") else []
    except Exception:  # noqa: BLE001 - any error of a validator or of the schema's generation
        return "has a default_factory that takes the validated fields, and they have no examples=[...] to check it with"
    calls = _OutsideCalls()
    try:
        first = factory(*given)  # not observed: it may import modules, and imports read files and clocks
        with calls:
            second = factory(*given)
    except Exception as exc:  # noqa: BLE001 - the factory is code of a task's author
        with_what = f"with the examples {given[0]!r:.200}" if given else "without arguments"
        return f"has a default_factory that cannot be called {with_what}: {exc!r}"
    if calls.names:
        return f"has a default_factory that calls {calls.names[0]}, whose answer differs between the API and the worker"
    if not _same(first, second):
        return f"has a default_factory that gives two different values, {first!r:.80} and {second!r:.80}"
    return None


def _in_python(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The same function in a form that the profiler can observe: a partial calls its function from C."""
    if not isinstance(factory, partial):
        return factory
    function = _in_python(factory.func)
    return lambda *given: function(*factory.args, *given, **factory.keywords)


class _OutsideCalls:
    """Records calls, inside of the block, of functions whose result does not depend on their arguments alone.

    Calling a factory twice would not find them all: two successive calls of `date.today` agree. The garbage collector
    is paused: libraries measure its pauses by `gc.callbacks`, which read the clock in any function that it interrupts.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def __enter__(self) -> None:
        self._collects = gc.isenabled()
        gc.disable()
        self._previous = sys.getprofile()
        sys.setprofile(self._on_event)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._previous)
        if self._collects:
            gc.enable()

    def _on_event(self, _: object, event: str, function: Any) -> None:
        if event != "c_call" or function is sys.setprofile:
            return
        owner = getattr(function, "__self__", None)
        reads_clock = isinstance(owner, type) and issubclass(owner, dt.date)
        name = function.__name__
        if (reads_clock and name in {"now", "today", "utcnow"}) or name in _OUTSIDE.get(function.__module__, ()):
            self.names.append(function.__qualname__)


def _same(first: Any, second: Any) -> bool:
    try:
        if type(first) is type(second) and bool(first == second):
            return True
        return pickle.dumps(first) == pickle.dumps(second)  # NaN, and objects without `__eq__`
    except Exception:  # noqa: BLE001 - values that can be neither compared nor pickled count as different
        return False


def _sample(fields: Schema, whole: Schema) -> dict[str, Any]:
    """Validated values of fields, built from their examples, defaults and types. Raises if the values are invalid."""
    # without aliases, and as model fields even if they belong to a dataclass or a typed dictionary
    plain = {name: {"metadata": {}, **field, "type": "model-field"} for name, field in fields.items()}
    for field in plain.values():
        field.pop("validation_alias", None)
        field.pop("name", None)
    schema: Any = {"type": "model-fields", "fields": plain}
    schema = {"type": "definitions", "schema": schema, "definitions": whole.get("definitions", [])}
    text = json.dumps(example(GenerateJsonSchema(by_alias=False).generate(schema)))
    values: dict[str, Any] = SchemaValidator(schema).validate_json(text)[0]
    return values
