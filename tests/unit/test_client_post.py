"""`post` in a terminal: the fields of any model are options, and JSON is passed unchanged."""

import datetime as dt
import enum
import json
import shlex
import subprocess
import warnings
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, SecretStr, create_model, field_validator
from pydantic.alias_generators import to_camel

from apps.client import post
from apps.client.__main__ import _options
from apps.contract.example import example_input
from apps.contract.tasks import Input, Registry, TaskSpec, input_adapter, registry
from tests.harness.random_models import made_tasks, random_spec
from tests.harness.simple_tasks import TASKS, WORK_QUEUE, Output

ROOT = Path(__file__).parents[2]


class Colour(enum.Enum):
    RED = "red"


class Size(BaseModel):
    width: int
    height: int = 1


class _Most(Input):
    """Has fields with the names of the command's own options, and values of every kind."""

    model_config = ConfigDict(alias_generator=lambda name: name if name == "task" else to_camel(name))
    task: Literal["everything"]
    wait: str = "no"
    help: str = "no"
    url: str = "no"
    verb: str = "no"
    body: str = "no"
    line: str = "no"
    timeout_s: float = 0
    first_name: str = "no"
    größe: int = 0  # noqa: PLC2401 - teams may use such names
    enabled: bool = False
    maybe: bool | None = None
    tags: list[str] = Field([])
    numbers: set[int] = Field(set())
    size: Size | None = None
    colour: Colour | None = None
    when: dt.date | None = None
    secret: SecretStr = SecretStr("no")
    strict: Annotated[int, Field(strict=True)] = 0
    other: Annotated[str, Field(validation_alias=AliasChoices("Other name!", "x"))] = "no"
    deep: Annotated[str, Field(validation_alias=AliasPath("place", "street", 1))] = "no"
    number: Annotated[int, Field(validation_alias=AliasPath("place", "number"))] = 0
    words: list[str] = Field([], description="100% of them")

    @field_validator("words", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


with warnings.catch_warnings(action="ignore"):  # of Pydantic: models have an attribute of this name
    Everything = create_model("Everything", __base__=_Most, json=(dict[str, Any], {}))


class Needs(Input):
    task: Literal["needs"]
    name: str
    size: Size


def tasks() -> Registry:
    specs = (("everything", Everything), ("needs", Needs))
    return registry(
        *(TaskSpec(name=f"{WORK_QUEUE}:{name}", input=model, output=Output, hard_limit_s=1) for name, model in specs)
    )


REGISTRY = tasks()
ADAPTER = input_adapter(REGISTRY)


def posted(*arguments: str) -> Any:
    """Return the input that the API would accept for a command line."""
    body = _options(["post", *arguments], REGISTRY).body
    return ADAPTER.validate_json(body if isinstance(body, str) else json.dumps(body))


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--wait", "long"], "wait", "long"),
        (["--help", "me"], "help", "me"),
        (["--help=-me"], "help", "-me"),
        (["--json", '{"a": [1.5, null]}'], "json", {"a": [1.5, None]}),
        (["--url", "http://a/?b=c&d=%20"], "url", "http://a/?b=c&d=%20"),
        (["--verb", "--body"], "verb", "--body"),
        (["--body", "b"], "body", "b"),
        (["--line", "l"], "line", "l"),
        (["--timeout-s", "2.5"], "timeout_s", 2.5),
        (["--first-name", "-abc"], "first_name", "-abc"),
        (["--first-name", "--"], "first_name", "--"),
        (["--first-name", ""], "first_name", ""),
        (["--first-name", "123"], "first_name", "123"),
        (["--first-name", "東京 \U0001f600 = $HOME %s"], "first_name", "東京 \U0001f600 = $HOME %s"),
        (["--größe", "-5"], "größe", -5),
        (["--enabled"], "enabled", True),
        (["--enabled", "false"], "enabled", False),
        (["--enabled", "--maybe", "no"], "maybe", False),
        (["--tags", "a"], "tags", ["a"]),
        (["--tags", "a", "--tags", "-b"], "tags", ["a", "-b"]),
        (["--tags", '["a", "b"]'], "tags", ["a", "b"]),
        (["--numbers", "1", "--numbers", "2"], "numbers", {1, 2}),
        (["--numbers", "7"], "numbers", {7}),
        (["--size", '{"width": 3}'], "size", Size(width=3)),
        (["--colour", "red"], "colour", Colour.RED),
        (["--when", "2030-01-31"], "when", dt.date(2030, 1, 31)),
        (["--secret", "s3cret"], "secret", SecretStr("s3cret")),
        (["--strict", "7"], "strict", 7),
        (["--other", "o"], "other", "o"),
        (["--deep", "d", "--number", "3"], "deep", "d"),
        (["--number", "3"], "number", 3),
        (["--words", "a,b"], "words", ["a", "b"]),
    ],
)
def test_option_sets_the_field_of_its_name(words: list[str], field: str, value: Any) -> None:
    assert getattr(posted("everything", *words), field) == value


def test_options_before_the_task_belong_to_the_command() -> None:
    options = _options(
        ["post", "--wait", "--timeout-s", "5", "everything", "--wait", "long", "--timeout-s", "7"], REGISTRY
    )
    assert (options.wait, options.timeout_s) == (True, 5)
    assert (options.body["wait"], options.body["timeoutS"]) == ("long", "7")


def test_options_of_the_command_are_accepted_after_a_task_without_such_fields() -> None:
    options = _options(["post", "first", "--name", "abc", "--wait", "--timeout-s", "5"], TASKS)
    assert (options.body, options.wait, options.timeout_s) == ({"task": "first", "name": "abc"}, True, 5)


@pytest.mark.parametrize("arguments", [["everything"], ["needs"], []])
def test_help_is_shown_for_each_task(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _options(["post", *arguments, "-h"], REGISTRY)
    assert caught.value.code == 0
    assert ("100%" in capsys.readouterr().out) == (arguments == ["everything"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["needs", "--name", "a"], "required: --size"),
        (["needs", "--json", "{}", "--name", "a"], "give no other field"),
        (["needs", "--name", "a", "--size", "{}", "--nothing", "a"], "--nothing"),
        (["needs", "--name", "a", "--size"], "--size: expected one argument"),
        (["neither"], "choose from everything, needs"),
        ([], "required: TASK"),
        (['{"task": "needs"}', "--name", "a"], "after the JSON"),
        (["--line", "needs --name 'a"], "No closing quotation"),
    ],
)
def test_error_names_the_mistake(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _options(["post", *arguments], REGISTRY)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_value_that_the_model_refuses_is_sent_to_the_api() -> None:
    """The API answers with the reason."""
    sent = _options(["post", "everything", "--größe", "x", "--size", '{"width": "a"}', "--strict", "y"], REGISTRY).body
    assert sent == {"task": "everything", "größe": "x", "size": {"width": "a"}, "strict": "y"}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"name": 1e400, "name": 1.10}', '{"task": "needs", "name": 1e400, "name": 1.10}'),
        (" {} ", '{"task": "needs"}'),
        ('{"task": "other"}', '{"task": "other"}'),
        ("[1]", "[1]"),
        ("{", "{"),
    ],
)
def test_json_is_sent_unchanged_with_the_task_added(text: str, sent: str) -> None:
    assert post.with_task("needs", text) == sent


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        (" a --b 'c d' ", ["a", "--b", "c d"]),
        ('a --json {"b": "c d", "e": ["f"]} --g h', ["a", "--json", '{"b": "c d", "e": ["f"]}', "--g", "h"]),
        ('{"task": "a", "n": 1e400}', ['{"task": "a", "n": 1e400}']),
        ('a --b=["c d", {}]', ["a", '--b=["c d", {}]']),
        ("a --b '{\"c\": 1}'", ["a", "--b", '{"c": 1}']),
        ("a {b} [c", ["a", "{b}", "[c"]),
        ("a # b", ["a", "#", "b"]),
        ('a "" b', ["a", "", "b"]),
        ("a --n " + "[" + "9" * 5000 + "]", ["a", "--n", "[" + "9" * 5000 + "]"]),
    ],
)
def test_line_is_split_like_in_a_shell_except_for_json(line: str, words: list[str]) -> None:
    assert post.words(line) == words


@given(st.lists(st.one_of(st.text(), st.dictionaries(st.text(), st.text(), min_size=1).map(json.dumps))))
def test_quoted_words_are_restored(words: list[str]) -> None:
    line = " ".join(word if word[:1] == "{" and _is_json(word) else shlex.quote(word) for word in words)
    assert post.words(line) == words


def _is_json(text: str) -> bool:
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


@given(st.randoms(use_true_random=False))
def test_example_command_of_any_model_is_valid(random: Random) -> None:
    (spec,) = made_tasks([random_spec(random, "made_0")]).values()
    if example_input(spec.input) is not None:
        body = _options(["post", "--line", post.command(spec)], {"made_0": spec}).body
        assert spec.input.__pydantic_validator__.validate_json(body if isinstance(body, str) else json.dumps(body))


@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        ("", ""),
        ('first --json {"name": "a $HOME `b` \\\\ \'c\'"}', 'first --json {"name": "a $HOME `b` \\\\ \'c\'"}'),
        ("first --name '$(HOME) # é'", "first --name '$(HOME) # é'"),
    ],
)
def test_make_passes_the_text_unchanged(text: str, arrives: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor last; do :; done; printf %s "$last"\n')
    python.chmod(0o755)
    command = ["make", "-s", "-o", "install", "post", f"TASK={text}", f"BIN={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == arrives
