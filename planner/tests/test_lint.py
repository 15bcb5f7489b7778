"""Each rule of `sluice lint` finds its trap, and reports nothing for correct overlays."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice_planner.cli import main
from sluice_planner.fields import Wrong
from sluice_planner.rules.findings import Finding, check_overlay
from sluice_planner.rules.registry import RULES, Assumptions
from tests.overlays import OVERLAY, objects, written

TRAPS = yaml.safe_load(Path(__file__).with_name("traps.yaml").read_text())


def found(text: str = OVERLAY, assumed: Assumptions | None = None) -> list[Finding]:
    return check_overlay(objects(text), assumed or Assumptions())


def test_correct_overlay_has_no_findings() -> None:
    assert found() == []


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"{trap['rule']} {trap['field']}")
def test_a_trap_is_found(trap: dict[str, Any]) -> None:
    text = OVERLAY
    for old, new in zip(trap["old"], trap["new"], strict=True):
        assert text.count(old) == 1
        text = text.replace(old, new)
    findings = [each for each in found(text) if each.rule.id == trap["rule"]]
    assert [each.field for each in findings] != []
    assert all(each.field.endswith(trap["field"]) for each in findings)
    assert all(each.message and each.fix and re.match(r"\w+ work/\w+$", each.title) for each in findings)


def test_every_rule_has_its_trap() -> None:
    assert set(RULES) == {trap["rule"] for trap in TRAPS}
    assert len(RULES) >= 20


def test_assumptions_affect_findings() -> None:
    assert [each.rule.id for each in found(assumed=Assumptions(task_limit_s=60))] == ["SL305"]
    assert [each.rule.id for each in found(assumed=Assumptions(queue_max_length=90))] == ["SL107"]
    assert [each.rule.id for each in found(assumed=Assumptions(sync_s=2))] == ["SL211", "SL218"]


def test_rules_are_ignored_and_unknown_ids_are_refused() -> None:
    text = OVERLAY.replace("replicas: 4", "replicas: 40")
    assert check_overlay(objects(text), Assumptions(), ["SL212"]) == []
    with pytest.raises(Wrong, match="--ignore: there is no rule SL999"):
        check_overlay(objects(text), Assumptions(), ["SL999"])


@pytest.fixture
def trapped(tmp_path: Path) -> str:
    return str(written(tmp_path, OVERLAY.replace("replicas: 4", "replicas: 40")))


def test_text(trapped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", trapped]) == 1
    assert capsys.readouterr().out == (
        f"{trapped}: ScaledObject work/scaler: spec.fallback.replicas: the HPA keeps it between 1 and 10;"
        " use a number within the bounds [warning SL212]\n"
    )


def test_json(trapped: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", trapped, "--format", "json"])
    (finding,) = json.loads(capsys.readouterr().out)
    assert {"id", "rule", "level", "source", "object", "field", "message", "fix"} == set(finding)
    assert (finding["id"], finding["object"]) == ("SL212", "ScaledObject work/scaler")


def test_sarif(trapped: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", trapped, "--format", "sarif"])
    (sarif,) = json.loads(capsys.readouterr().out)["runs"]
    assert [result["ruleId"] for result in sarif["results"]] == ["SL212"]
    assert sarif["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == trapped
    assert {rule["id"] for rule in sarif["tool"]["driver"]["rules"]} == set(RULES)


def test_github(trapped: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", trapped, "--format", "github"])
    assert capsys.readouterr().out.startswith(
        f"::warning file={trapped},title=SL212::ScaledObject work/scaler: spec.fall"
    )


def test_exit_status_ignores_notes(tmp_path: Path) -> None:
    assert (
        main(["lint", str(written(tmp_path, OVERLAY.replace("fallback: {failureThreshold: 2, replicas: 4}", "")))]) == 0
    )


def test_overlay_without_scaled_objects_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(written(tmp_path, "kind: Service\nmetadata: {name: some}"))]) == 2
    assert "has no ScaledObject" in capsys.readouterr().err
