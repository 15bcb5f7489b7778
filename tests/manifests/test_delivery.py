"""Flux waits until a ScaledObject is ready, and reports a failed one."""

from typing import Any

import pytest

from ops.command import ROOT
from ops.validate.delivery import compile_, environment
from ops.validate.tree import render


@pytest.fixture(scope="module")
def expressions() -> dict[str, str]:
    """The health check expressions for ScaledObjects."""
    apps = next(each for each in render(ROOT, ["clusters/local"]).objects("Kustomization") if each.name == "apps")
    (check,) = apps.spec["healthCheckExprs"]
    return {"failed": check["failed"], "current": check["current"]}


def condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status}


@pytest.mark.parametrize(
    ("conditions", "failed", "current"),
    [
        ([condition("Ready", "True"), condition("Active", "False")], False, True),
        ([condition("Ready", "False"), condition("Active", "Unknown")], True, False),
        ([condition("Ready", "Unknown")], False, False),
        ([condition("Active", "True")], False, False),
        ([], False, False),
    ],
)
def test_health_of_a_scaled_object_follows_its_conditions(
    expressions: dict[str, str], conditions: list[dict[str, str]], *, failed: bool, current: bool
) -> None:
    status: dict[str, Any] = {"status": {"conditions": conditions}}
    answers = {name: environment().compile(text).eval(data=status).value() for name, text in expressions.items()}
    assert answers == {"failed": failed, "current": current}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("status.ready == 'True'", None),
        ("status.ready", None),  # its type is unknown until it is evaluated
        ("state.ready == 'True'", "undeclared reference to 'state"),
        ("status.ready == ", "Syntax error"),
        ("status.conditions.filtr(e, true)", "undeclared reference"),
        ("'True'", "must be true or false"),
    ],
)
def test_invalid_expression_is_reported(expression: str, problem: str | None) -> None:
    found = compile_(expression)
    assert found is None if problem is None else problem in str(found)
