"""The contract equals its baseline, and the comparison of two contracts finds breaking and compatible changes."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from apps.contract import topology
from ops.command import Unusable
from ops.contract.__main__ import FILE, check, contract, text
from ops.contract.comparison import compare
from tests.harness.next_version import NEXT_TASKS, QUEUE
from tests.harness.simple_tasks import TASKS, WORK_QUEUE
from tests.harness.tasks import TEST_TASKS

CONTRACT = contract(TASKS)
TASK = f"{WORK_QUEUE}:first"
Change = Any


def test_contract_equals_its_baseline() -> None:
    assert json.loads(FILE.read_text()) == json.loads(text(contract())), "see `make lint`"


def changed(change: Change) -> dict[str, Any]:
    """Return the contract after a change."""
    new = copy.deepcopy(CONTRACT)
    change(new)
    return new


def _input(new: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = new["tasks"][TASK]["input"]
    return found


def _output(new: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = new["tasks"][TASK]["output"]
    return found


def _call(new: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = new["openapi"]["paths"]["/tasks/{task_id}"]["get"]
    return found


BREAKING: dict[str, tuple[Change, str]] = {
    "task removed": (lambda new: new["tasks"].pop(TASK), "the task is gone"),
    "task renamed": (lambda new: new["tasks"].update({f"{TASK}_2": new["tasks"].pop(TASK)}), "the task is gone"),
    "queue removed": (lambda new: new["queues"].remove("celery"), "celery: the queue is gone"),
    "field removed": (lambda new: _input(new)["properties"].pop("name"), "input.name: the field is gone"),
    "field required": (
        lambda new: _input(new).update(
            properties=_input(new)["properties"] | {"size": {"type": "integer"}}, required=["task", "name", "size"]
        ),
        "input.size: the field is required",
    ),
    "type changed": (lambda new: _input(new)["properties"]["name"].update(type="integer"), "the type was"),
    "limit tightened": (lambda new: _input(new)["properties"]["name"].update(maxLength=100), "maxLength was 255"),
    "pattern changed": (lambda new: _input(new)["properties"]["name"].update(pattern="a"), "pattern was"),
    "unknown keyword": (lambda new: _input(new)["properties"]["name"].update(contentEncoding="base64"), "contentEnc"),
    "result's field removed": (lambda new: _output(new)["properties"].pop("state"), "output.state: the field is gone"),
    "result's type widened": (
        lambda new: _output(new)["properties"]["state"].update(type=["string", "null"]), "output.state: the type was",
    ),
    "call removed": (lambda new: new["openapi"]["paths"].pop("/tasks/batch"), "POST /tasks/batch: the call is gone"),
    "parameter removed": (lambda new: _call(new).update(parameters=[]), "the parameter is gone"),
    "answer removed": (lambda new: _call(new)["responses"].pop("200"), "200: the answer is gone"),
    "answer's type removed": (lambda new: _call(new)["responses"]["200"].update(content={}), "no longer answered"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREAKING)
def test_breaking_change_is_reported(kind: str) -> None:
    change, said = BREAKING[kind]
    found = compare(CONTRACT, changed(change))
    assert found[0].breaking
    assert any(said in str(finding) and finding.breaking for finding in found)


HARMLESS: dict[str, tuple[Change, str]] = {
    "task added": (lambda new: new["tasks"].update({"celery:new": new["tasks"][TASK]}), "workers out first"),
    "queue added": (lambda new: new["queues"].append("images"), "definitions before the API"),
    "field added": (lambda new: _input(new)["properties"].update(size={"type": "integer"}), "workers out first"),
    "limit relaxed": (lambda new: _input(new)["properties"]["name"].update(maxLength=300), "workers out first"),
    "field no longer required": (lambda new: _input(new)["required"].remove("name"), "workers out first"),
    "form of messages": (lambda new: new.update(form=2), "workers out first"),
    "result's field added": (lambda new: _output(new)["properties"].update(size={}), "output.size: the field is new"),
    "call added": (lambda new: new["openapi"]["paths"].update({"/new": {"get": {"responses": {}}}}), "GET /new"),
    "answer added": (lambda new: _call(new)["responses"].update({"429": {}}), "429: the answer is new"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMLESS)
def test_compatible_change_is_reported_with_the_order_of_the_rollout(kind: str) -> None:
    change, said = HARMLESS[kind]
    found = compare(CONTRACT, changed(change))
    assert any(said in str(finding) for finding in found)
    assert not any(finding.breaking for finding in found)


@pytest.mark.parametrize(("there", "back"), [("relaxed", "tightened"), ("tightened", "relaxed")])
def test_tightened_limit_is_breaking_and_relaxed_limit_is_not(there: str, back: str) -> None:
    most = {"relaxed": 300, "tightened": 100}
    new = changed(lambda new: _input(new)["properties"]["name"].update(maxLength=most[there]))
    directions = {there: compare(CONTRACT, new), back: compare(new, CONTRACT)}
    assert {name: found[0].breaking for name, found in directions.items()} == {"relaxed": False, "tightened": True}


def test_changed_descriptions_are_not_reported() -> None:
    assert compare(CONTRACT, changed(lambda new: _input(new).update(description="another", title="word"))) == []


def test_real_models_of_two_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the test tasks contain references and unions."""
    monkeypatch.setattr(topology, "WORK_QUEUES", (*topology.WORK_QUEUES, QUEUE))
    found = compare(contract(TEST_TASKS), contract(NEXT_TASKS))
    breaking = {finding.where for finding in found if finding.breaking}
    assert {"celery:elsewhere", f"{WORK_QUEUE}:count input.digits"} <= breaking
    assert f"{WORK_QUEUE}:sleep input.colour" in {finding.where for finding in found if not finding.breaking}


def test_check_states_whether_a_change_is_breaking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(text(changed(HARMLESS["field added"][0])))
    with pytest.raises(Unusable, match="breaks clients"):
        check(file, CONTRACT)
    assert f"BREAKING: {WORK_QUEUE}:first input.size: the field is gone" in capsys.readouterr().out
    file.write_text(text(CONTRACT))
    with pytest.raises(Unusable, match="breaks nothing"):
        check(file, changed(HARMLESS["field added"][0]))
    check(file, CONTRACT)
