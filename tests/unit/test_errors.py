"""Problem documents: whatever a validator or a client put into one, it can be sent, and is short."""

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


def test_text_of_a_validator_can_be_sent_and_is_short() -> None:
    sent = _problem(b'{"task": "a", "name": "b"}')
    assert len(sent) < 2000
    assert "caf\xe9\\x00.mp4 is no film" in from_json(sent)["errors"][0]["msg"]


def test_name_of_a_field_that_a_client_made_up_is_not_sent_back_whole() -> None:
    body = json.dumps({"task": "a", "name": "b", **{f"{number}{'x' * 100_000}": 1 for number in range(9)}})
    assert len(_problem(body.encode())) < 20_000
