"""Each log line is JSON of bounded length, for any logged value and any logger."""

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from apps import logs

BASE = {"time", "level", "logger", "message", "pid"}
MEGABYTES = 1_000_000


class Mute:
    """An object whose text cannot be read, as libraries may log one."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


def line(
    message: object = "done", *args: object, fields: Any = None, exc: BaseException | None = None
) -> dict[str, Any]:
    """Log a message; returns the line as a strict parser reads it."""
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("a", logging.INFO, "", 0, message, args, info)
    if fields is not None:
        record.fields = fields
    formatted = logs.JsonFormatter().format(record)
    assert len(formatted.encode()) < logs.LINE_MAX_BYTES
    assert "\n" not in formatted
    read: dict[str, Any] = from_json(formatted, allow_inf_nan=False)
    return read


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc  # noqa: TRY301 - raised here to get a traceback
    except BaseException as caught:  # noqa: BLE001 - with its traceback
        return caught


def test_ordinary_values_are_logged_unchanged() -> None:
    fields = {"task": "a:b", "ms": 1.5, "tries": 2, "ok": True, "queues": ["a", "ä"], "none": None}
    told = line("%s and %d", "text", 1, fields=fields)
    assert told["message"] == "text and 1"
    assert {name: told.get(name) for name in fields} == fields


@pytest.mark.parametrize("long", ["x" * MEGABYTES, "ä\x00" * MEGABYTES, "\U0001f600\udce9\n" * MEGABYTES])
def test_long_texts_are_truncated(long: str) -> None:
    for told in (
        line(long),
        line("%s", long),
        line(fields={"a": long, "b": long, "c": [long]}),
        line(fields={long: 1}),
    ):
        assert set(told) >= BASE


def test_head_and_tail_of_a_long_traceback_are_kept() -> None:
    told = line(exc=raised(ValueError("begin" + "x" * MEGABYTES + "end \udce9")))["exception"]
    assert told.startswith("Traceback (most recent call last):")
    assert "raise exc" in told
    assert "ValueError: beginxxx" in told
    assert told.endswith(r"xxxend \udce9")


def test_first_and_last_exception_of_a_long_chain_are_kept() -> None:
    last = RuntimeError("the last")
    last.__cause__ = raised(KeyError("the first"))
    for number in range(300):
        middle = ValueError(f"{number}: {'x' * 100}")
        middle.__cause__, last.__cause__ = last.__cause__, middle
    told = line(exc=raised(last))["exception"]
    assert "the first" in told[: logs.TEXT_MAX_CHARS // 2]
    assert told.endswith("RuntimeError: the last")


@pytest.mark.parametrize(
    ("message", "args"),
    [("%d", ("x",)), ("%s %s", ("x",)), ("%s", (Mute(),)), (Mute(), ()), ("%", (1,)), (b"\xff", ())],
)
def test_arguments_that_do_not_match_the_format_lose_no_line(message: object, args: tuple[object, ...]) -> None:
    assert set(line(message, *args)) == BASE


def test_exception_that_cannot_be_formatted_loses_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RecursionError

    monkeypatch.setattr(logs.JsonFormatter, "formatException", fail)
    assert "ValueError" in line(exc=raised(ValueError("a")))["exception"]


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def _circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


ODD = {
    "bytes": b"\xff" * MEGABYTES, "object": Mute(), "class": Mute, "nan": float("nan"), "set": {1},
    "names": {(1, 2): 3, "\udce9": 4}, "deep": _deep(), "circular": _circular(), "list": ["x"] * MEGABYTES,
    "number": 10**5000,
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_field_of_any_type_is_logged(name: str) -> None:
    told = line(fields={"odd": ODD[name], "plain": "text"})
    assert (told["plain"], "odd" in told) == ("text", True)


@pytest.mark.parametrize("fields", ["text", 1, ["a"], {str(number): "x" * 1000 for number in range(1000)}])
def test_invalid_or_too_many_fields_lose_no_line(fields: object) -> None:
    assert set(line(fields=fields)) >= BASE


@given(
    st.dictionaries(
        st.text(st.characters()),
        st.recursive(st.none() | st.floats() | st.integers() | st.text(st.characters()) | st.binary(), st.lists),
    )
)
def test_any_fields_are_one_line_of_json(fields: dict[str, Any]) -> None:
    line(fields=fields)


def test_lines_of_libraries_are_bounded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    level = root.level
    try:
        logs.configure("INFO")
        root.handlers[0].setStream(sys.stderr)  # type: ignore[attr-defined]  # a StreamHandler
        for name in ("celery.app.trace", "uvicorn.error", "aiormq", "py.warnings", "a.team"):
            logging.getLogger(name).error("%s", "\udce9" + "x" * MEGABYTES)
    finally:
        logging.captureWarnings(capture=False)
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(one)["logger"] for one in lines] == [
        "celery.app.trace",
        "uvicorn.error",
        "aiormq",
        "py.warnings",
        "a.team",
    ]
    assert max(map(len, lines)) < logs.LINE_MAX_BYTES
