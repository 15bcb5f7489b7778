"""Compares the planner's HPA sync with the controller of Kubernetes, run in virtual time."""

import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from sluice_planner import hpa_controller, scenarios
from sluice_planner.fields import Field, Wrong
from tests import hpa_oracle, hpa_scenarios

# the first build takes minutes
pytestmark = pytest.mark.timeout(1500)

SEED = 20261122
VALID = 5000
BROKEN = 300

# mutants: (a line of the sync, its replacement)
MUTANTS = [
    ("record.at_ns >= cutoff]", "record.at_ns > cutoff]"),
    ("records if record.at_ns > down_cutoff)", "records if record.at_ns >= down_cutoff)"),
    ("records if record.at_ns > up_cutoff)", "records if record.at_ns >= up_cutoff)"),
    (
        "sum(record.replicas for record in records if record.at_ns > cutoff)",
        "sum(record.replicas for record in records if record.at_ns >= cutoff)",
    ),
    ("return current - added + removed", "return current - added"),
    ("max(2 * current, 4)", "max(2 * current, 5)"),
    ("_from_float(math.ceil(percent))", "_from_float(int(percent))"),
    ("_from_float(int(percent))", "_from_float(math.ceil(percent))"),
    ("if record.at_ns < cutoff]", "if record.at_ns < 0]"),
    ("return min(limits) if rules.select ==", "return max(limits) if rules.select =="),
    ("return max(limits) if rules.select ==", "return min(limits) if rules.select =="),
    ("1.0 - down <= ratio", "1.0 - down < ratio"),
    ("if len(valid) < len(proposals) and wanted", "if wanted"),
    ("_int32(start + policy.value)", "start + policy.value"),
    ("int(settings.downscale_stabilization_s) if", "300 if"),
]

Case = tuple[scenarios.Scenario, list[Any]]


@pytest.fixture(scope="module")
def asked() -> list[dict[str, Any]]:
    random = Random(SEED)  # noqa: S311 - seeded, so that a failure is reproducible
    valid = [hpa_scenarios.scenario(random) for _ in range(VALID)]
    return valid + [hpa_scenarios.broken(random, hpa_scenarios.scenario(random)) for _ in range(BROKEN)]


@pytest.fixture(scope="module")
def answered(asked: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return hpa_oracle.answers(asked, tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def cases(asked: list[dict[str, Any]], answered: list[dict[str, Any]]) -> list[Case]:
    """The valid scenarios with the controller's results."""
    pairs = zip(asked[:VALID], answered[:VALID], strict=True)
    return [(scenarios.scenario(Field(each, "random")), answer["desired"]) for each, answer in pairs]


@pytest.fixture
def mutant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of the sync with one line replaced."""
    old, new = request.param
    source = Path(hpa_controller.__file__).read_text()
    assert source.count(old) == 1
    module = ModuleType("mutant")
    monkeypatch.setitem(sys.modules, "mutant", module)
    exec(source.replace(old, new), module.__dict__)  # noqa: S102 - our own source
    monkeypatch.setattr(scenarios, "step", module.step)


def disagrees(case: Case) -> bool:
    scenario, desired = case
    return [list(pair) for pair in scenarios.run(scenario)] != desired


def test_every_sync_of_random_scenarios(cases: list[Case]) -> None:
    assert len(cases) == VALID
    assert sum(len(desired) for _, desired in cases) > 40 * VALID
    assert [number for number, case in enumerate(cases) if disagrees(case)] == []


def test_random_scenarios_cover_many_changes(cases: list[Case]) -> None:
    """Many scenarios have more than two numbers of replicas."""
    sizes = [len({replicas for _, replicas in desired}) for _, desired in cases]
    assert sum(size > 2 for size in sizes) > VALID / 3


def test_invalid_specs_are_refused_as_by_the_api(asked: list[dict[str, Any]], answered: list[dict[str, Any]]) -> None:
    for spec, answer in zip(asked[VALID:], answered[VALID:], strict=True):
        assert answer.get("invalid"), spec
        with pytest.raises(Wrong, match=r"behavior\.scale"):
            scenarios.scenario(Field(spec, "random"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda pair: pair[1], indirect=True)
@pytest.mark.usefixtures("mutant")
def test_mutants_are_detected(cases: list[Case]) -> None:
    assert any(disagrees(case) for case in cases)
