"""The workflows of CI are valid, pinned, read-only, and use existing make targets."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.command import ROOT
from ops.tools import built

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
MAKEFILES = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
README = ROOT / "README.md"
PARTS = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "e2e").glob("test_*.py")}
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


CI = ROOT / ".github" / "workflows" / "ci.yaml"
NIGHTLY = ROOT / ".github" / "workflows" / "nightly.yaml"
MATRIX = "${{ matrix.run }}"


def steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs; a step with a matrix of commands is returned once per command."""
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in _of_job(job)]


def _of_job(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for step in job["steps"]:
        if step.get("run") == MATRIX:
            yield from ({"run": run} for run in job["strategy"]["matrix"]["run"])
        else:
            yield step


def commands(path: Path) -> list[list[str]]:
    """Return the words of each command of a workflow."""
    return [shlex.split(step["run"]) for step in steps(path) if "run" in step]


def test_actionlint_reports_nothing() -> None:
    command = [str(built("actionlint")), "-no-color", *map(str, WORKFLOWS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@each_workflow
def test_make_targets_of_the_workflow_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILES, re.MULTILINE))
    ran = {word for step in steps(path) for word in re.findall(r"make ([a-z0-9-]+)", step.get("run", ""))}
    assert ran
    assert ran <= targets


@each_workflow
def test_every_action_is_pinned_by_digest(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert all(re.fullmatch(r"\s+- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in lines)


@each_workflow
def test_workflow_may_only_read_and_has_timeouts(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert "permissions" not in job
    checkouts = [step for step in steps(path) if "actions/checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_container_is_pinned_by_digest() -> None:
    images = re.findall(r"image: (\S+)", "".join(path.read_text() for path in WORKFLOWS))
    assert images
    assert all(re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image) for image in images)


def test_ci_runs_make_test() -> None:
    assert any(step.get("run") == "make test" for step in steps(CI))


def test_ci_runs_every_step_of_ci_run() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for name, value in re.findall(r'^(\w+)="(.*)"$', script, re.MULTILINE):
        script = script.replace(f"${name}", value)
    wanted = [shlex.split(line, comments=True) for line in re.findall(r"^step (make .*)$", script, re.MULTILINE)]
    assert len(wanted) > 5
    assert [words for words in wanted if words not in commands(CI)] == []


def test_ci_runs_the_targets_named_in_the_readme() -> None:
    words = " ".join(README.read_text().split())
    (sentence,) = re.findall(r"CI runs ([^.]*?) for each change, and ([^.]*?) each night", words)
    for targets, path in zip(sentence, (CI, NIGHTLY), strict=True):
        named = set(re.findall(r"`make ([a-z0-9-]+)`", targets))
        assert named
        assert named <= {words[1] for words in commands(path) if words[0] == "make"}


def test_charts_are_tested_nightly_and_when_their_values_change() -> None:
    path = ROOT / ".github" / "workflows" / "charts.yaml"
    triggers = yaml.safe_load(path.read_text())[True]  # YAML 1.1 reads `on` as true
    assert triggers["schedule"]
    for event in ("push", "pull_request"):
        assert {"helm-releases/**", "clusters/**", "loadtest/cluster-platform/**"} <= set(triggers[event]["paths"])
    ran = [step.get("run", "") for step in steps(path)]
    order = [next(number for number, run in enumerate(ran) if f"make {target} " in run)
             for target in ("pull-charts", "test-charts", "e2e")]  # fmt: skip
    assert order == sorted(order)


def test_named_parts_of_the_cluster_tests_exist() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    named = [part for parts in re.findall(r'E2E="([\w ]+)"', text) for part in parts.split()]
    assert named
    assert set(named) <= PARTS


def test_kind_cluster_of_ci_has_the_documented_ports() -> None:
    document, workflow = ((ROOT / name).read_text() for name in ("docs/deploy.md", ".github/workflows/charts.yaml"))
    (nodes,) = set(re.findall(r"nodes: (\[\{role: control-plane.*\])", document))
    assert f"nodes: {nodes}" in workflow
