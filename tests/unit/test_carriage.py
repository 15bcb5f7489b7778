"""For every model, the worker reads exactly the values that the API accepted."""

import datetime as dt
import json
import logging
import sys
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from kombu import serialization
from pydantic import Field, Json, TypeAdapter, ValidationError, field_validator

from apps.api.body import batch_model, elements, parse_batch, parse_input
from apps.api.errors import Problem
from apps.contract.message import Payload, read_input, republished, task_message
from apps.contract.model_checks import obstacles
from apps.contract.tasks import Input, Registry, TaskSpec, input_adapter, registry
from tests.harness.random_models import ModelSpec, exact, made_tasks, random_spec, random_text
from tests.harness.simple_tasks import WORK_QUEUE, Output

ANY = random_spec(Random(1), "made_0")  # noqa: S311 - reproducible test data
RANDOM = st.randoms(use_true_random=False)


def received(spec: TaskSpec, text: str) -> Input:
    """Return the input that a worker reads from a message that was published, retried, parked and requeued."""
    message = task_message(spec, text, task_id="i", owner="o", request_id="r")
    retried = _encoded(_decoded(message.body))
    again = republished(message.headers, retried, task_id="j", routing_key=spec.queue)
    (argument,), _, _ = _decoded(again.body)
    assert argument == text
    return read_input(spec.input, argument)


def _decoded(body: bytes) -> Any:
    return serialization.loads(body, "application/json", "utf-8")


def _encoded(payload: Any) -> bytes:
    return str(serialization.dumps(payload, "json")[2]).encode()


def made(random: Random, count: int = 2) -> tuple[list[ModelSpec], Registry, TypeAdapter[Input]]:
    specs = [random_spec(random, f"made_{number}") for number in range(count)]
    tasks = made_tasks(specs)
    return specs, tasks, input_adapter(tasks)


@settings(max_examples=40)
@given(RANDOM)
def test_worker_reads_the_accepted_values_of_any_model(random: Random) -> None:
    specs, tasks, adapter = made(random)
    for spec in specs:
        assert list(obstacles(tasks[spec.task].input)) == []
        for _ in range(8):
            text = random_text(random, spec)
            note(f"{spec}\n{text}")
            try:
                accepted = adapter.validate_json(text.encode())
            except ValidationError:
                with pytest.raises(Problem) as caught:
                    parse_input(adapter, text.encode())
                assert caught.value.status in {400, 422}
                continue
            assert parse_input(adapter, text.encode()) == Payload(spec.task, text)
            assert exact(received(tasks[spec.task], text)) == exact(accepted)


@settings(max_examples=30)
@given(RANDOM)
def test_input_in_a_batch_gives_the_same_outcome_as_alone(random: Random) -> None:
    specs, tasks, adapter = made(random)
    texts = [
        random.choice(["5", "null", '"a"', "[{}]", *(random_text(random, spec) for spec in specs)]) for _ in range(6)
    ]
    body = f' {{ "tasks" :\n[ {" ,".join(texts)}\t]}}'.encode()
    found = parse_batch(batch_model(tasks), adapter, body)
    assert [_outcome(one) for one in found] == [_outcome(_alone(adapter, text)) for text in texts]


def _alone(adapter: TypeAdapter[Input], text: str) -> Payload | Problem:
    try:
        return parse_input(adapter, text.encode())
    except Problem as problem:
        return problem


def _outcome(found: Payload | Problem) -> Any:
    return (found.status, found.members) if isinstance(found, Problem) else found


WHITE = st.text(" \t\n\r", max_size=2)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["]}", '\\"', "[,", "tasks", "\\"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@st.composite
def spaced(draw: st.DrawFn, value: Any) -> str:
    """Generate JSON with whitespace anywhere, and with or without escapes."""
    text = json.dumps(
        value, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (" , ", "\n: ")]))
    )
    return draw(WHITE) + text + draw(WHITE)


@given(st.data(), st.lists(VALUES, max_size=5), st.lists(VALUES, max_size=3))
def test_slices_equal_the_elements_of_the_array(data: st.DataObject, values: list[Any], before: list[Any]) -> None:
    texts = [data.draw(spaced(value)) for value in values]
    name = data.draw(st.sampled_from(['"tasks"', '"t\\u0061sks"']))
    repeated = "".join(f'"tasks":{data.draw(spaced(value))},' for value in before)
    space = data.draw(WHITE)
    text = f"{space}{{{space}{repeated}{space}{name}{space}:{space}[{','.join(texts) or space}]{space}}}{space}"
    assert elements(text) == [one.strip(" \t\n\r") for one in texts]


def test_number_that_python_refuses_to_parse_is_only_sliced() -> None:
    assert elements('{"tasks":[' + "9" * 5000 + ", 1e999999]}") == ["9" * 5000, "1e999999"]


def test_last_of_repeated_names_counts() -> None:
    specs = [ANY]
    tasks = made_tasks(specs)
    item = '{"task": "made_0"}'
    for first in ("5", f"[{item}]", "[1, 2]"):
        body = f'{{"tasks": {first}, "tasks": [3, {item}, 4]}}'.encode()
        assert len(parse_batch(batch_model(tasks), input_adapter(tasks), body)) == 3


def test_error_in_a_validator_refuses_only_its_input() -> None:
    class Broken(Input):
        task: Literal["broken"]
        size: int

        @field_validator("size")
        @classmethod
        def _divide(cls, value: int) -> int:
            return 100 // value if value < 1000 else sys.exit(value)

    tasks = registry(TaskSpec(name=f"{WORK_QUEUE}:broken", input=Broken, output=Output, hard_limit_s=1))
    adapter = input_adapter(tasks)
    for text in (b'{"task": "broken", "size": 0}', b'{"task": "broken", "size": 1000}'):
        with pytest.raises(Problem) as caught:
            parse_input(adapter, text)
        assert (caught.value.status, caught.value.members["errors"][0]["type"]) == (422, "validator_failed")
    body = b'{"tasks": [{"task": "broken", "size": 1000}, {"task": "broken", "size": 2}]}'
    bad, good = parse_batch(batch_model(tasks), adapter, body)
    assert isinstance(bad, Problem)
    assert good == Payload("broken", '{"task": "broken", "size": 2}')


class PanicException(BaseException):
    """An exception as Rust code raises it through PyO3."""


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), PanicException("\ud800"), ValueError("caf\udce9"), MemoryError()]
)
def test_any_exception_of_a_validator_refuses_only_its_input(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(
        logging.CRITICAL, "apps.api.body"
    )  # pytest cannot send a captured lone surrogate to its own process

    class Raising(Input):
        task: Literal["raising"]
        size: int

        @field_validator("size")
        @classmethod
        def _raise(cls, _: int) -> int:
            raise error

    tasks = registry(TaskSpec(name=f"{WORK_QUEUE}:raising", input=Raising, output=Output, hard_limit_s=1))
    with pytest.raises(Problem) as caught:
        parse_input(input_adapter(tasks), b'{"task": "raising", "size": 0}')
    assert (caught.value.status, caught.value.members["errors"][0]["type"]) == (422, "validator_failed")


def test_invalid_json_in_a_json_field_is_an_invalid_input() -> None:
    """It must not be a malformed body: a batch is parsed as JSON before its inputs are validated."""

    class Nested(Input):
        task: Literal["nested"]
        document: Json[int]

    tasks = registry(TaskSpec(name=f"{WORK_QUEUE}:nested", input=Nested, output=Output, hard_limit_s=1))
    body = b'{"tasks": [{"task": "nested", "document": "{"}]}'
    (problem,) = parse_batch(batch_model(tasks), input_adapter(tasks), body)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.kind, problem.members["errors"][0]["loc"]) == (422, "invalid", ["document"])


def test_message_of_an_earlier_version_is_read() -> None:
    """Its argument is the validated input, dumped by field name; test_upgrade.py tests whole messages."""

    class Earlier(Input):
        task: Literal["earlier"]
        first_name: str = Field(alias="firstName")
        when: dt.datetime

    text = '{"task": "earlier", "firstName": "a", "when": "2030-01-31T12:00:00Z"}'
    accepted = Earlier.model_validate_json(text)
    assert read_input(Earlier, accepted.model_dump(mode="json")) == accepted
    assert read_input(Earlier, text) == accepted
