"""Deliberate faults in the manifests: the change of one file, and the finding that it must cause."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from apps.contract import topology
from ops.command import ROOT
from ops.validate.tree import FOLDERS, Finding


@dataclass(frozen=True)
class Fault:
    """Replaces `old` by `new` in a file. `targets` are the folders that are rendered.

    `found` is a regular expression for the expected finding, "file: object: field: message".
    """

    name: str
    file: str
    old: str
    new: str
    found: str
    targets: tuple[str, ...] = ("kustomize/base",)

    def inject(self, clone: Path) -> None:
        """Make the change in a copy of the manifests."""
        path = clone / self.file
        text = path.read_text()
        assert self.old in text
        path.write_text(text.replace(self.old, self.new, 1))

    def assert_found(self, findings: Iterable[Finding]) -> None:
        """Assert that a finding names the file, the object and the field."""
        lines = [str(finding) for finding in findings]
        assert any(re.match(self.found, line) for line in lines), "\n".join(lines)


def faults(path: Path) -> list[Fault]:
    """Read the faults of a YAML file, and replace WORK-QUEUE by the name of the first work queue."""
    return [Fault(**each) for each in yaml.safe_load(path.read_text().replace("WORK-QUEUE", topology.WORK_QUEUES[0]))]


def copied(into: Path) -> Path:
    """Copy the validated files into a folder; returns the folder."""
    for folder in (*FOLDERS, "loadtest/tasks"):
        shutil.copytree(ROOT / folder, into / folder)
    for image in ("api", "worker"):
        (into / "apps" / image).mkdir(parents=True)
        shutil.copy(ROOT / "apps" / image / "Dockerfile", into / "apps" / image)
    return into
