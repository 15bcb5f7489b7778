"""apps/contract/text.py: cleaning of texts from tasks, clients and libraries."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.contract import states
from apps.contract.text import clean, clean_all

ANY_TEXT = st.text(st.characters())  # includes lone surrogates and control characters


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("caf\udce9.mp4", r"caf\udce9.mp4"),
        ("\ud800", r"\ud800"),
        ("a\x00b\x1b[2J\x7f\x85", r"a\x00b\x1b[2J\x7f\x85"),
        ("a line\n\ta second\r\n", "a line\n\ta second\r\n"),
        ("Łódź \U0001f600 e\u0301 \u2028", "Łódź \U0001f600 e\u0301 \u2028"),
        ("", ""),
    ],
)
def test_only_unstorable_and_control_characters_are_escaped(given_text: str, cleaned: str) -> None:
    assert clean(given_text, 1000) == cleaned


@given(ANY_TEXT, st.integers(min_value=1, max_value=200))
def test_any_text_becomes_encodable_and_bounded(text: str, max_chars: int) -> None:
    cleaned = clean(text, max_chars)
    cleaned.encode()
    assert len(cleaned) <= max_chars
    assert not {chr(code) for code in (*range(9), 11, 12, *range(14, 32), 127)} & set(cleaned)
    assert clean(cleaned, max_chars) == cleaned


def test_head_and_tail_and_length_of_a_long_text_are_kept() -> None:
    cleaned = clean("head" + "x" * 10_000_000 + "tail", 100)
    assert len(cleaned) == 100
    assert cleaned.startswith("headxxx")
    assert cleaned.endswith("xxxtail")
    assert "(10000008 characters in all)" in cleaned


def test_length_is_that_of_the_text_without_escapes() -> None:
    assert "(5000 characters in all)" in clean("\x00" * 5000, 100)


def test_escapes_do_not_exceed_the_maximum_length() -> None:
    assert len(clean("\udce9" * 100, 100)) == 100


def test_names_in_a_document_are_cleaned_too() -> None:
    document = {"a\udce9": ["\x00", ("\ud800", 1.5, None, True)], "n": {"deep": "x" * 200}}
    cleaned = clean_all(document, 100)
    json.dumps(cleaned, ensure_ascii=False).encode()
    assert cleaned[r"a\udce9"] == [r"\x00", [r"\ud800", 1.5, None, True]]
    assert len(cleaned["n"]["deep"]) == 100


@given(ANY_TEXT, ANY_TEXT)
def test_any_failure_can_be_stored(type_: str, message: str) -> None:
    failure = states.failure(type_ * 50, message * 500, 200)
    json.dumps(failure, ensure_ascii=False).encode()
    assert len(failure["type"]) <= states.TYPE_MAX_CHARS
    assert len(failure["message"]) <= 200
