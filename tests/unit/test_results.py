"""apps/contract/results.py: the JSON of a result as it is stored and sent."""

import json
import math
from collections import deque, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr, computed_field, field_serializer
from pydantic_core import PydanticSerializationError, from_json

from apps.contract import results
from apps.contract.results import CEILING_BYTES, ResultTooLarge

MIB = 1024 * 1024
Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - teams may write it like this


@dataclass(frozen=True, slots=True)
class Part:
    text: str


class Own(list[str]):
    """A list whose constructor has another signature."""

    def __init__(self, *parts: str) -> None:
        super().__init__(parts)


class Found(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    value: Any = None


class Encoded(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", ser_json_inf_nan="constants")
    data: bytes = b""
    name: str = ""
    number: float = 0.0


class Computed(BaseModel):
    name: str = "a"
    key: SecretStr = SecretStr("secret")

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def path(self) -> str:
        return f"{self.name}\udce9"

    @field_serializer("name")
    def _name(self, name: str) -> str:
        return name + "\ud800"


def encoded(output: BaseModel) -> Any:
    """Return the result as a strict parser reads it: Rust's parser accepts neither lone surrogates nor NaN."""
    return from_json(results.encode(output, MIB), allow_inf_nan=False)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("caf\udce9.mp4", r"caf\udce9.mp4"),
        (dict([("k\udce9", 1), ("k\udcea", 2)]), {r"k\udce9": 1, r"k\udcea": 2}),  # noqa: C406 - ruff takes the two keys for one
        (["a", ("\ud800",), {"x\udc00"}], ["a", [r"\ud800"], [r"x\udc00"]]),
        (b"caf\xe9", r"caf\xe9"),
        (bytearray(b"caf\xe9"), r"caf\xe9"),
        (Own("\udcff"), [r"\udcff"]),
        (deque(["\udcff"]), [r"\udcff"]),
        ({Path("\udcff"): Path("a\udcff")}, {r"\udcff": r"a\udcff"}),
        ({"a": b"\xff", "b": "\udcff"}, {"a": r"\xff", "b": r"\udcff"}),
        (Part("\udcff"), {"text": r"\udcff"}),
        (Pair("\udcff", 1), [r"\udcff", 1]),
        (Found(value="\udcff"), {"value": r"\udcff"}),
        (math.nan, None),
        ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
        ("a\x00b\x1f\n", "a\x00b\x1f\n"),  # JSON can escape these characters
        ("\ufffd NaN Infinity \\ud800", "\ufffd NaN Infinity \\ud800"),
        (2**70, 2**70),
    ],
)
def test_any_text_of_a_result_can_be_stored(value: object, stored: object) -> None:
    assert encoded(Found(value=value)) == {"value": stored}
    assert encoded(RootModel[Any](value)) == stored


@pytest.mark.parametrize("parts", [["a", "\udce9"], ["a", b"\xff"], ["a", object()]])
def test_iterator_that_cannot_be_encoded_raises(parts: list[object]) -> None:
    """A second attempt to encode would find the iterator empty, and store an empty result."""
    with pytest.raises((PydanticSerializationError, UnicodeError)):
        results.encode(Found(value=iter(parts)), MIB)


def test_error_in_a_generator_raises() -> None:
    with pytest.raises(PydanticSerializationError, match="ZeroDivisionError"):
        results.encode(Found(value=(1 // number for number in (1, 0))), MIB)


def test_iterator_with_replacement_characters_is_encoded() -> None:
    assert encoded(Found(value=iter(["\ufffd"]))) == {"value": ["\ufffd"]}


def test_similar_keys_stay_different() -> None:
    """Pydantic writes the same three replacement characters for each lone surrogate in a key of type `str`."""
    counts = {name: number for number, name in enumerate(["k\udce9", "k\udcea", "k\ufffd"])}
    assert encoded(RootModel[dict[str, int]](counts)) == {r"k\udce9": 0, r"k\udcea": 1, "k\ufffd": 2}


def test_extra_fields_are_escaped_too() -> None:
    assert encoded(Found.model_validate({"value": 1, "more": "\udce9"})) == {"value": 1, "more": r"\udce9"}


def test_output_of_serializers_is_escaped_and_secrets_stay_masked() -> None:
    assert encoded(Computed()) == {"name": r"a\ud800", "key": "**********", "path": r"a\udce9"}


def test_bytes_as_base64_stay_base64() -> None:
    assert encoded(Encoded(data=b"\xff\xfe", name="\udce9")) == {"data": "__4=", "name": r"\udce9", "number": 0.0}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_become_null_for_any_configuration_of_the_model(number: float) -> None:
    assert encoded(Encoded(number=number))["number"] is None


@given(st.recursive(st.text(st.characters()) | st.binary() | st.floats(), st.lists, max_leaves=10))
def test_any_value_becomes_strict_json(value: object) -> None:
    encoded(Found(value=value))


def test_ordinary_result_equals_pydantics_encoding() -> None:
    found = Found(value={"a": [1, 2.5, "ä"]})
    assert results.encode(found, MIB).decode() == found.model_dump_json()


@pytest.mark.parametrize(("text", "fits"), [("x" * (MIB - 12), True), ("x" * (MIB - 11), False), ("ä" * MIB, False)])
def test_limit_counts_stored_bytes(text: str, fits: bool) -> None:
    if fits:
        assert len(results.encode(Found(value=text), MIB)) == MIB
        return
    with pytest.raises(ResultTooLarge) as raised:
        results.encode(Found(value=text), MIB)
    assert f"{len(json.dumps({'value': text}, ensure_ascii=False).encode()) - 1} bytes" in str(raised.value)
    assert f"{MIB} are kept" in str(raised.value)


@pytest.mark.parametrize("digits", [4301, 5000])
def test_integer_that_python_does_not_parse_is_refused(digits: int) -> None:
    with pytest.raises(ValueError, match="digits"):
        results.encode(Found(value=-(10 ** (digits - 1))), MIB)


def test_maximum_result_is_far_below_the_limit_of_redis() -> None:
    assert CEILING_BYTES * 8 == 512 * MIB


@pytest.mark.parametrize(
    ("stored", "readable"),
    [
        (r'{"message": "caf\udce9.mp4"}', {"message": r"caf\udce9.mp4"}),
        (r'{"a\uD800": [NaN, Infinity, -Infinity, "NaN"]}', {r"a\ud800": [None, None, None, "NaN"]}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_record_of_an_older_version_becomes_strict_json(stored: str, readable: object) -> None:
    assert from_json(results.readable(stored), allow_inf_nan=False) == readable


@pytest.mark.parametrize("stored", ["{NaN", "[" * 100_000 + "NaN"])
def test_invalid_json_is_left_unchanged(stored: str) -> None:
    assert results.readable(stored) == stored
