"""`sluice` on the overlays of this project, and its examples in README and docs/planner.md."""

import json
import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from apps.contract.topology import WORK_QUEUES
from apps.worker.task_metrics import RUN_SECONDS
from ops.command import ROOT
from ops.tools import module_folders
from sluice_planner import kubernetes_objects, manifests, service_times
from sluice_planner.cli import main
from sluice_planner.hpa_controller import Policy
from sluice_planner.rules.triggers import KNOWN
from tests.harness.thorough import thorough

TEXT = "".join((ROOT / name).read_text() for name in ("README.md", "docs/planner.md"))
DOCUMENTED = re.findall(r"^\.venv/bin/sluice (.*)$", TEXT, re.MULTILINE)

# The others take half a minute of CPU. The test of the picture runs the first comparison, too.
QUICK = [command for command in DOCUMENTED if command.startswith(("simulate ", "lint "))]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_documents_show_the_main_commands() -> None:
    assert {command.split()[0] for command in DOCUMENTED} == {"simulate", "compare", "lint", "size"}


@pytest.mark.parametrize("command", [*QUICK, *thorough(*(command for command in DOCUMENTED if command not in QUICK))])
def test_documented_command_succeeds(command: str) -> None:
    assert main(shlex.split(command)) == 0


def test_picture_and_readme_show_the_simulated_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = [each for each in DOCUMENTED if "burst:2200@1m" in each and each.startswith("compare")]
    assert command in Path("Makefile").read_text().replace(" \\\n\t\t--png docs/planner.png", "")
    main([*shlex.split(command), "--json"])
    base, load = (side[0]["summary"] for side in json.loads(capsys.readouterr().out).values())
    assert (base["replicas_max"], load["replicas_max"]) == (2, 60)
    assert load["max_ready_at_s"] - 60 == 85
    assert "sixty after 85 s" in TEXT


def test_lint_knows_the_fields_that_kedas_scaler_reads() -> None:
    """`make validate` relies on it: KEDA ignores any other field silently."""
    document = json.loads((module_folders()[0] / "schema" / "generated" / "scalers-schema.json").read_text())
    (scaler,) = (each["parameters"] for each in document["scalers"] if each["type"] == "rabbitmq")
    read = {each["name"] for each in scaler if each.get("metadataVariableReadable")}
    read |= {f"{each['name']}FromEnv" for each in scaler if each.get("envVariableReadable")}
    # KEDA's list leaves these out, and another rule of lint refuses them in manifests
    assert KNOWN - {"username", "password"} <= read


def test_picture_has_a_reasonable_size() -> None:
    assert 10_000 < Path("docs/planner.png").stat().st_size < 200_000


def test_load_overlay_can_be_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    arrivals_of_one = f"{WORK_QUEUES[0]}=2/s"
    assert main(["simulate", "kustomize/overlays/load", "--arrivals", arrivals_of_one, "--service", "12.5"]) == 0
    assert "celery-worker-scaler" in capsys.readouterr().out


def test_load_overlay_is_rendered_and_parsed() -> None:
    (found,) = manifests.workloads(kubernetes_objects.read("kustomize/overlays/load"), manifests.Reading())
    assert (found.scaler.minimum, found.scaler.maximum, found.scaler.poll_s) == (2, 60, 3)
    assert [(each.queue, each.value) for each in found.scaler.triggers] == [(WORK_QUEUES[0], 10.0), ("celery", 10.0)]
    assert found.scaler.behavior
    assert found.scaler.behavior.down.policies == (Policy("Percent", 50, 120),)
    assert (found.pod.cpu, found.pod.grace_s) == (Fraction(1, 2), 120)


@pytest.mark.parametrize("overlay", ["kustomize/base", "kustomize/overlays/load", "kustomize/overlays/local"])
def test_lint_finds_no_problem_in_the_overlays(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", overlay, "--task-limit", "90s", "--queue-max-length", "200000"]) == 0
    assert capsys.readouterr().out == "No problems found.\n"


@pytest.mark.thorough
def test_patch_generated_by_size_can_be_applied_to_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("kustomize", tmp_path / "kustomize")
    folder = tmp_path / "kustomize/overlays/sized"
    folder.mkdir()
    options = ["--slo", "p95 wait < 2m", "--arrivals", "0.5/s", "--service", "12.5", "--duration", "10m"]
    options += ["--replications", "2", "--patch", str(folder / "sized.yaml")]
    main(["size", str(tmp_path / "kustomize/base"), *options])
    (folder / "kustomization.yaml").write_text(
        "resources: [../../base]\n"
        "patches: [{path: sized.yaml, target: {kind: ScaledObject, name: celery-worker-scaler}}]"
    )
    operations = {each["path"]: each["value"] for each in yaml.safe_load((folder / "sized.yaml").read_text())}
    (sized,) = manifests.workloads(kubernetes_objects.read(str(folder)), manifests.Reading())
    assert sized.scaler.maximum == operations["/spec/maxReplicaCount"]
    value = operations["/spec/triggers/0/metadata/value"]
    assert [f"{each.value:g}" for each in sized.scaler.triggers] == [value, "1000"]
    capsys.readouterr()
    assert main(["lint", str(folder)]) == 0


def test_worker_exports_the_metric_for_service_times() -> None:
    assert next(iter(RUN_SECONDS.collect())).name == service_times.METRIC
