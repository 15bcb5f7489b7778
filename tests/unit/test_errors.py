"""Problem documents can always be encoded and are short, for any text of a validator or client."""

import json
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter
from pydantic_core import from_json

from apps.api import errors
from apps.api.body import parse_input
from apps.contract.tasks import Input


def _refuse(_: str) -> str:
    raise ValueError("caf\xe9\x00.mp4 is no film" + "x" * 1_000_000)


class Refusing(Input):
    name: Annotated[str, AfterValidator(_refuse)]


def _problem(body: bytes) -> bytes:
    try:
        parse_input(TypeAdapter(Refusing), body)
    except errors.Problem as problem:
        return bytes(errors.response(problem).body)
    raise AssertionError


def test_text_of_a_validator_is_encodable_and_truncated() -> None:
    sent = _problem(b'{"task": "a", "name": "b"}')
    assert len(sent) < 2000
    assert "caf\xe9\\x00.mp4 is no film" in from_json(sent)["errors"][0]["msg"]


def test_long_field_names_of_a_client_are_truncated() -> None:
    body = json.dumps({"task": "a", "name": "b", **{f"{number}{'x' * 100_000}": 1 for number in range(9)}})
    assert len(_problem(body.encode())) < 20_000
