"""The reason of a dead letter, and the failure of an exception."""

import json
from pathlib import Path
from typing import Any

import pytest

from apps.contract import failures
from apps.worker.outcome import failure_of, traceback_of

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
GIVEN = json.dumps({"type": "NotUnderstood", "message": "m"})


@pytest.mark.parametrize(
    ("headers", "type_"),
    [
        ({"x-death": [{"reason": "delivery_limit"}, {"reason": "expired"}]}, failures.DELIVERY_LIMIT),
        # RabbitMQ 4.3; a retry was in an expiring delay queue before
        ({"x-last-death-reason": "expired", "x-first-death-reason": "expired"}, failures.EXPIRED),
        ({"x-last-death-reason": "delivery_limit", "x-death": [{"reason": "expired"}]}, failures.DELIVERY_LIMIT),
        ({"x-death": [{"reason": "maxlen"}]}, failures.OVERFLOW),
        ({"x-death": [{"reason": "rejected"}]}, failures.REJECTED),
        ({}, failures.REJECTED),
        ({"failure": GIVEN, "x-death": [{"reason": "expired"}]}, failures.NOT_UNDERSTOOD),
        ({"failure": GIVEN.encode()}, failures.NOT_UNDERSTOOD),
    ],
)
def test_reason_of_a_dead_letter_comes_from_the_worker_or_the_broker(headers: dict[str, Any], type_: str) -> None:
    assert failures.of_dead_letter(headers)["type"] == type_


@pytest.mark.parametrize("header", ["", "no json", "7", "[]", "{}", '{"type": "T"}', 7, b"\xff", "[" * 100_000])
def test_malformed_failure_header_is_ignored(header: object) -> None:
    assert failures.of_dead_letter({"failure": header})["type"] == failures.REJECTED


def test_every_type_is_documented() -> None:
    page = API_PAGE.read_text()
    assert {name for name in failures.TYPES if f"| `{name}` |" not in page} == set()


def test_exception_that_cannot_be_printed_has_a_traceback() -> None:
    class BadError(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise ValueError

    assert "BadError" in traceback_of(BadError())


def test_exception_whose_text_exits_is_a_failure() -> None:
    class ExitingError(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    assert failure_of(ExitingError())["type"] == "ExitingError"
    assert "SystemExit" in failure_of(ExitingError())["message"]
