"""`sluice size` finds numbers that meet the objectives, and writes a patch that Kustomize accepts."""

import json
import re
from pathlib import Path

import pytest

from sluice_planner import kubernetes_objects, manifests, objectives, patch
from sluice_planner.cli import main
from sluice_planner.fields import Wrong
from sluice_planner.objectives import Drain, Wait
from sluice_planner.replications import mean
from sluice_planner.sizing import BEHAVIORS, Candidate
from tests.overlays import OVERLAY, outcome, trigger, workload, written

FAST = ["--service", "10", "--duration", "20m", "--replications", "2"]


def test_objectives() -> None:
    assert objectives.read("p95 wait < 60s") == Wait("p95", 60)
    assert objectives.read("mean wait <= 2m") == Wait("mean", 120)
    assert objectives.read("drain 30000 in 10m") == Drain(30000, 600)


@pytest.mark.parametrize(
    "text", ["fast", "p95 wait < soon", "p100 wait < 1s", "p95 wait < 0", "drain 0 in 1m", "drain 5 in 0s"]
)
def test_invalid_objectives_are_refused(text: str) -> None:
    with pytest.raises(Wrong, match=r"^--slo '"):
        objectives.read(text)


def test_objectives_measure_waits() -> None:
    found = outcome(workload(minReplicaCount=1, maxReplicaCount=1), "burst:100", "1")
    assert Wait("mean", 1).measured_s(found) == pytest.approx(49.5)
    assert Wait("max", 1).measured_s(found) == 99
    assert Wait("p90", 1).measured_s(found) == pytest.approx(90, rel=0.02)


def test_confidence_intervals_are_students() -> None:
    # runs 1..5: standard error sqrt(2.5 / 5), t is 2.776 at 4 degrees of freedom
    assert mean([1, 2, 3, 4, 5]).half == pytest.approx(2.776 * 0.5**0.5, rel=1e-3)
    assert mean([7, 7, 7]).upper == 7
    assert mean([7]).upper == float("inf")
    assert mean([1, float("inf")]).upper == float("inf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path)
    (tmp_path / "kustomization.yaml").write_text("resources: [overlay.yaml]")
    return tmp_path


def test_result_meets_the_objectives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch = folder / "patch.yaml"
    slo = ["--slo", "p95 wait < 30s", "--slo", "drain 300 in 5m"]
    assert main(["size", str(folder), *slo, "--arrivals", "0.3/s", *FAST, "--patch", str(patch)]) == 0
    assert "The overlay itself does not meet the objectives" in capsys.readouterr().out
    (folder / "kustomization.yaml").write_text(
        "resources: [overlay.yaml]\npatches: [{path: patch.yaml, target: {kind: ScaledObject, name: scaler}}]"
    )
    (sized,) = manifests.workloads(kubernetes_objects.read(str(folder)), manifests.Reading())
    usual = outcome(sized, "0.3/s", "10", duration_s=1200.0, seed=50)
    assert usual.waits.percentile_s(95) < 30
    burst = outcome(sized, "0.3/s + burst:300@900", "10", duration_s=1800.0, seed=51)
    assert burst.drained_s
    assert burst.drained_s - 900 < 300
    # ten permanent pods would also meet the objectives, and cost more
    assert usual.pod_hours < outcome(workload(minReplicaCount=10), "0.3/s", "10", duration_s=1200.0, seed=50).pod_hours


def test_only_triggers_of_queues_with_arrivals_are_changed() -> None:
    two = workload(triggers=[*trigger(), *trigger(queueName="more", value="7")])
    applied = Candidate(3, 2, 20, None).applied(two, ["jobs"])
    assert [each.value for each in applied.scaler.triggers] == [3, 7]
    assert (applied.scaler.minimum, applied.scaler.maximum, applied.scaler.behavior) == (2, 20, two.scaler.behavior)


def test_patch_adds_missing_fields(tmp_path: Path) -> None:
    text = re.sub(r"  (minReplicaCount|maxReplicaCount): .*\n", "", OVERLAY)
    text = re.sub(r"  advanced:\n.*\n.*\n", "", text)
    written(tmp_path, text)
    scaled = next(
        each for each in kubernetes_objects.read(str(tmp_path / "overlay.yaml")) if each.kind == "ScaledObject"
    )
    chosen = Candidate(2.5, 3, 40, next(iter(BEHAVIORS)))
    made = patch.as_yaml(patch.operations(scaled, chosen, ["jobs"]), scaled)
    (tmp_path / "patch.yaml").write_text(made)
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [overlay.yaml]\npatches: [{path: patch.yaml, target: {kind: ScaledObject, name: scaler}}]"
    )
    (sized,) = manifests.workloads(kubernetes_objects.read(str(tmp_path)), manifests.Reading())
    assert (sized.scaler.minimum, sized.scaler.maximum, sized.scaler.triggers[0].value) == (3, 40, 2.5)
    assert sized.scaler.behavior == BEHAVIORS[chosen.behavior or ""]


@pytest.mark.parametrize(
    ("slo", "options", "reason"),
    [
        ("drain 30000 in 10m", ["--most-pods", "50"], "needs 503 pods from the first second, more than --most-pods 50"),
        ("p95 wait < 60s", ["--most-pods", "2"], "the usual traffic keeps 3.0 pods busy, at least --most-pods 2"),
        (
            "drain 100 in 2s",
            ["--most-pods", "600"],
            "drain 100 in 2 s is not reachable: 600 pods all the time never reach it",
        ),
    ],
)
def test_unreachable_objectives_are_explained(
    slo: str, options: list[str], reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", str(folder), "--slo", slo, "--arrivals", "0.3/s", *FAST, *options]) == 1
    assert reason in capsys.readouterr().out


def test_every_candidate_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["size", str(folder), "--slo", "p95 wait < 5m", "--arrivals", "0.1/s", *FAST, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found) >= 50
    assert (found[0]["value"], found[0]["min"], found[0]["max"], found[0]["behavior"]) == (10, 1, 10, None)
    assert all(each["pod_hours"] > 0 for each in found)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--slo", "fast", "--arrivals", "1/s"], "--slo 'fast': must read"),
        (["--slo", "p95 wait < 60s", "--arrivals", "burst:5"], "--arrivals: must be without end"),
        (["--slo", "p95 wait < 60s", "--arrivals", "1/s", "--replications", "1"], "--replications: must be at least 2"),
        (
            ["--slo", "p95 wait < 60s", "--arrivals", "1/s", "--most-pods", "1000000"],
            "--most-pods: must be at most 10000",
        ),
        (
            ["--slo", "p95 wait < 60s", "--arrivals", "1/s", "--scaled-object", "other"],
            "--scaled-object: must select one",
        ),
    ],
)
def test_invalid_questions_are_refused(
    options: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", str(folder), "--service", "10", *options]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_only_queue_length_can_be_sized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, OVERLAY.replace("mode: QueueLength", "mode: MessageRate"))
    assert main(["size", str(path), "--slo", "p95 wait < 60s", "--arrivals", "1/s", "--service", "10"]) == 2
    assert "only mode QueueLength can be sized" in capsys.readouterr().err
