"""Renders Kustomize folders with the Kustomize in kubectl."""

from pathlib import Path
from typing import Any

from ops.command import output
from ops.tools import kubectl
from sluice_planner.kubernetes_objects import documents

TIMEOUT_S = 60


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The objects that a folder renders to. Raises Unusable with the reason if Kustomize fails."""
    return documents(output(kubectl(), "kustomize", folder, timeout_s=TIMEOUT_S))
