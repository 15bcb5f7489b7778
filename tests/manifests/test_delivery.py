"""Flux waits until a ScaledObject is ready, and reports a failed one."""

from pathlib import Path
from typing import Any

import pytest
from cel_expr_python import cel

from ops.command import ROOT
from ops.validate.tree import render
from tests.harness.manifest_faults import Fault, copied, faults

FAULTS = faults(Path(__file__).with_name("health_check_faults.yaml"))
NAMES = ("failed", "current")
# the names in an expression: the fields of any object; Kubernetes adds functions, which ours do not use
ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(("apiVersion", "kind", "metadata", "spec", "status"), cel.Type.DYN))


def compiled(root: Path) -> dict[str, Any]:
    """The health check of ScaledObjects, as Flux compiles it; each expression is true or false, or fails here."""
    apps = next(each for each in render(root, ["clusters/local"]).objects("Kustomization") if each.name == "apps")
    (check,) = apps.spec["healthCheckExprs"]
    expressions = {name: ENVIRONMENT.compile(check[name]) for name in NAMES}
    assert {each.return_type().name() for each in expressions.values()} <= {"BOOL", "DYN"}
    return expressions


@pytest.fixture(scope="module")
def expressions() -> dict[str, Any]:
    return compiled(ROOT)


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
    expressions: dict[str, Any], conditions: list[dict[str, str]], *, failed: bool, current: bool
) -> None:
    status: dict[str, Any] = {"status": {"conditions": conditions}}
    answers = {name: each.eval(data=status).value() for name, each in expressions.items()}
    assert answers == {"failed": failed, "current": current}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_of_the_health_check_is_found(fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    with pytest.raises((RuntimeError, AssertionError), match=fault.found):
        compiled(clone)
