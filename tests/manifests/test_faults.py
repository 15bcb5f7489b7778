"""Deliberate faults: each is found, with a message that names the file, the object and the field."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deploy.run import ROOT
from deploy.validate.__main__ import findings


@dataclass(frozen=True)
class Fault:
    """One entry of faults/*.yaml: `old` becomes `new` in a file, and then validating `targets` must find `found`.

    `found` is a regular expression of "file: object: field: message".
    """

    name: str
    file: str
    old: str
    new: str
    found: str
    targets: tuple[str, ...] = ("kustomize/base",)


FILES = sorted(Path(__file__).with_name("faults").glob("*.yaml"))
FAULTS = [Fault(**each) for path in FILES for each in yaml.safe_load(path.read_text())]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is validated."""
    for folder in ("kustomize", "helm-releases", "clusters"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for image in ("api", "worker"):
        (tmp_path / "apps" / image).mkdir(parents=True)
        shutil.copy(ROOT / "apps" / image / "Dockerfile", tmp_path / "apps" / image)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, clone: Path) -> None:
    path = clone / fault.file
    text = path.read_text()
    assert fault.old in text
    path.write_text(text.replace(fault.old, fault.new, 1))
    found = [str(finding) for finding in findings(clone, fault.targets)]
    assert any(re.match(fault.found, line) for line in found), "\n".join(found)
