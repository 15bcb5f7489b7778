"""A fault is reported once, for the file that must be changed."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from ops.command import ROOT
from ops.validate import chart_values, policy
from ops.validate.attribution import attribute
from ops.validate.tree import FOLDERS, Finding, render

BASE = "kustomize/base/worker/deployment.yaml"
REQUEST = "spec.template.spec.containers[worker].resources.requests.memory"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in (*FOLDERS, "loadtest/tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def found(clone: Path, file: str, old: str, new: str, rules: ModuleType = policy) -> list[Finding]:
    """Replace a text in a file; returns the findings of one module of rules for all folders."""
    text = (clone / file).read_text()
    assert old in text
    (clone / file).write_text(text.replace(old, new, 1))
    tree = render(clone)
    assert tree.findings == []
    return attribute(tree, list(rules.check(tree)))


def test_fault_of_the_base_is_reported_once(clone: Path) -> None:
    (fault,) = found(clone, BASE, "enableServiceLinks: false", "enableServiceLinks: true")
    assert (fault.file, "rendered by" in fault.message) == (BASE, False)


@pytest.mark.thorough
def test_fault_of_a_component_is_reported_for_its_patch(clone: Path) -> None:
    patch = "kustomize/components/small/worker-requests.yaml"
    (fault,) = found(clone, patch, "memory: 128Mi", "memory: null")
    assert (fault.file, fault.field) == (patch, REQUEST)
    assert fault.message.endswith(f"(in {BASE}, rendered by kustomize/components/small)")


def test_fault_of_a_cluster_is_reported_for_its_patch(clone: Path) -> None:
    patch = "clusters/local/infrastructure/redis-small.yaml"
    (fault,) = found(clone, patch, "  values:\n", "  values:\n    priorityClassName: sluice-api\n", chart_values)
    assert (fault.file, fault.object) == (patch, "HelmRelease data/redis")
    assert "rendered by clusters/local/infrastructure" in fault.message


@pytest.mark.thorough
def test_fault_of_an_image_tag_is_reported_for_the_overlay(clone: Path) -> None:
    overlay = "kustomize/overlays/load/kustomization.yaml"
    (fault,) = found(clone, overlay, "sluice-api\n    newTag: 0.1.0", "sluice-api\n    newTag: latest")
    assert (fault.file, fault.object) == (overlay, "Deployment fastapi/api")


@pytest.mark.thorough
def test_fault_of_an_inline_patch_is_reported_for_its_kustomization(clone: Path) -> None:
    overlay = "kustomize/overlays/load/kustomization.yaml"
    patch = (
        "  - target: {kind: Deployment, name: celery-worker}\n"
        "    patch: |-\n"
        "      - op: remove\n"
        "        path: /spec/template/spec/enableServiceLinks\n"
    )
    (fault,) = found(clone, overlay, "patches:\n", f"patches:\n{patch}")
    assert (fault.file, fault.field) == (overlay, "spec.template.spec.enableServiceLinks")
