"""A post in a terminal: derives options from the model of a task's input, and converts them to JSON."""

import argparse
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import AliasChoices, AliasPath, ValidationError
from pydantic.fields import FieldInfo

from apps.contract.example import example_input
from apps.contract.tasks import Input, TaskSpec

Path = tuple[str | int, ...]
# Options of the command. After the task's name, a field of the same name takes precedence.
WAIT, TIMEOUT, JSON, HELP = "--wait", "--timeout-s", "--json", "--help"
_RAW_JSON = re.compile(r"(--[^\s'\"=]+=)?(?=[\[{])")


class Option(NamedTuple):
    """An option for a field, and the path of its value in the JSON."""

    name: str
    flag: str
    path: Path
    field: FieldInfo

    @property
    def is_switch(self) -> bool:
        """Whether the option may have no value, which means true."""
        return bool in {self.field.annotation, *get_args(self.field.annotation)}


def options(model: type[Input]) -> list[Option]:
    """The options for a model's fields, except `task`, which is the command's first word."""
    by_name = model.model_config.get("validate_by_alias") is False
    return [
        Option(name, f"--{name.replace('_', '-')}", (name,) if by_name else _path(name, field.validation_alias), field)
        for name, field in model.model_fields.items()
        if name != "task"
    ]


def _path(name: str, alias: str | AliasPath | AliasChoices | None) -> Path:
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    if isinstance(alias, AliasPath):
        return tuple(alias.path)
    return (alias or name,)


def parse(spec: TaskSpec, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments after a task's name. Returns `body`, and `wait` and `timeout_s` if they were given.

    Exits with a usage message, like argparse.
    """
    known = options(spec.input)
    parser = _parser(spec, known)
    values, others = _field_values(known, arguments)
    given = parser.parse_args(others)
    whole = getattr(given, "json", None)
    if whole is not None and values:
        parser.error(f"{JSON} is the whole input: give no other field")
    missing = [option.flag for option in known if option.field.is_required() and option.name not in values]
    if whole is None and missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    given.body = inputs(spec, values) if whole is None else with_task(spec.short_name, whole)
    return given


def _parser(spec: TaskSpec, known: Sequence[Option]) -> argparse.ArgumentParser:
    taken = {option.flag for option in known}
    parser = argparse.ArgumentParser(
        prog=f"python -m apps.client post {spec.short_name}",
        allow_abbrev=False,
        add_help=False,
        epilog=f"For example: {command(spec)}".replace("%", "%%"),
    )
    for option in known:  # only for the help: argparse accepts no values with a leading dash
        about = (option.field.description or "").replace("%", "%%")
        more: dict[str, Any] = {"nargs": "?"} if option.is_switch else {}
        parser.add_argument(option.flag, dest=f"field.{option.name}", help=about, metavar=option.name.upper(), **more)
    parser.add_argument("-h", *({HELP} - taken), action="help", help="show this help")
    if WAIT not in taken:
        parser.add_argument(WAIT, action="store_true", help="wait for the end of the task")
    if TIMEOUT not in taken:
        parser.add_argument(TIMEOUT, type=float, help="seconds to wait (default: 3600)")
    if JSON not in taken:
        parser.add_argument(JSON, help="the whole input as JSON, instead of the other fields")
    return parser


def _field_values(known: Sequence[Option], arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values of each field by its name, and the words that belong to no field."""
    by_flag = {option.flag: option for option in known}
    values: dict[str, list[str]] = {}
    others: list[str] = []
    waiting = list(reversed(arguments))
    while waiting:
        word = waiting.pop()
        flag, equals, value = word.partition("=")
        option = by_flag.get(flag)
        if option is None:
            others.append(word)
            continue
        if not equals and option.is_switch and (not waiting or waiting[-1].startswith("-")):
            value = "true"
        elif not equals and waiting:
            value = waiting.pop()
        elif not equals:
            others.append(word)  # argparse reports the missing value
            continue
        values.setdefault(option.name, []).append(value)
    return values, others


def inputs(spec: TaskSpec, values: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The input for options. A value is a string, JSON, or a list of either: the first form that the model accepts.

    If the model accepts no form, the last one is sent, and the API reports the error.
    """
    given = [(option, _forms(values[option.name])) for option in options(spec.input) if option.name in values]
    chosen = dict.fromkeys(values, 0)
    while True:
        built: dict[str, Any] = {"task": spec.short_name}
        for option, forms in given:
            _put(built, option.path, forms[chosen[option.name]])
        wrong = _wrong_fields(spec.input, built)
        others = [
            option.name
            for option, forms in given
            if chosen[option.name] < len(forms) - 1 and {option.path, (option.name,)} & wrong
        ]
        if not others:
            return built
        chosen |= {name: chosen[name] + 1 for name in others}


def _forms(texts: Sequence[str]) -> list[Any]:
    """The possible values of an option, given once or several times; the last is the most likely one if none fits."""
    decoded = [_decoded(text) for text in texts]
    if len(texts) > 1:
        return [list(texts), decoded]
    (text,), (value,) = texts, decoded
    return [text, value, [text], [value], value if isinstance(value, list | dict) else text]


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    """Set a value inside of nested objects and arrays, which are created if missing."""
    at: Any = document
    part: Any
    for part, after in zip(path, [*path[1:], None], strict=True):
        if isinstance(part, int):
            at.extend([None] * (part + 1 - len(at)))
        if after is None:
            at[part] = value
        elif isinstance(at, list):
            at[part] = at[part] or ([] if isinstance(after, int) else {})
        else:
            at.setdefault(part, [] if isinstance(after, int) else {})
        at = at[part]


def _wrong_fields(model: type[Input], document: dict[str, Any]) -> set[Path]:
    """The locations of the model's errors, with all their prefixes."""
    try:
        model.__pydantic_validator__.validate_json(json.dumps(document))
    except ValidationError as exc:
        places = [error["loc"] for error in exc.errors(include_url=False, include_context=False)]
        return {place[:end] for place in places for end in range(1, len(place) + 1)}
    except Exception:  # noqa: BLE001 - a defect of a validator, which the API will report
        return set()
    return set()


def with_task(task: str, text: str) -> str:
    """The JSON of an input, with its task added if it has none. The rest of the text is unchanged."""
    given = _decoded(text)
    if not isinstance(given, dict) or "task" in given:
        return text
    rest = text.strip().removeprefix("{")
    return f'{{"task": {json.dumps(task)}{", " if given else ""}{rest}'


def command(spec: TaskSpec) -> str:
    """The command line for the model's example, or its JSON if a required field has no option."""
    example = example_input(spec.input)
    if example is None:
        return json.dumps({"task": spec.short_name})[:-1] + ", ...}"
    flags = {option.path: option.flag for option in options(spec.input)}
    words = [spec.short_name]
    for name, value in example.items():
        if name == "task":
            continue
        if (name,) not in flags:
            return json.dumps(example, ensure_ascii=False)
        words += [flags[name,], value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
    return shlex.join(words)


def words(line: str) -> list[str]:
    """Split a line like a shell, except that a JSON object or array is one word and keeps its quotes.

    Raises ValueError for an unclosed quote.
    """
    found = []
    rest = line.strip()
    while rest:
        end = _end_of_json(rest)
        if end:
            found.append(rest[:end])
        else:
            stream = io.StringIO(rest)
            lexer = shlex.shlex(stream, posix=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            found.append(lexer.get_token() or "")
            end = stream.tell()
        rest = rest[end:].lstrip()
    return found


def _end_of_json(text: str) -> int:
    """The end of a JSON object or array at the start of the text, or after `--option=`; 0 if there is none."""
    match = _RAW_JSON.match(text)
    if match is None:
        return 0
    try:
        end = json.JSONDecoder(parse_int=str).raw_decode(text, match.end())[1]
    except (ValueError, RecursionError):
        return 0
    return end if end == len(text) or text[end].isspace() else 0
