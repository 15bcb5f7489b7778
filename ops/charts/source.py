"""Finds charts in a folder outside of the repository: unpacked or as archives, from `helm pull` or from git."""

import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ops import pins
from ops.command import Unusable
from sluice_planner.kubernetes_objects import document_of

FILE = "Chart.yaml"


@dataclass(frozen=True)
class Chart:
    """A chart that helm can render. `folder` is a copy that includes the dependencies of the chart."""

    name: str
    version: str
    folder: Path

    @property
    def defaults(self) -> dict[str, Any]:
        """The content of values.yaml."""
        return dict(document_of(self.folder / "values.yaml") or {})


@contextmanager
def charts(folder: Path) -> Iterator[dict[str, Chart]]:
    """The charts of `pins.CHART_KEYS` by name.

    Raises Unusable if there is no such folder, or if a chart is missing or has an unexpected version.
    """
    if not folder.is_dir():
        raise Unusable(f"There is no folder {folder}: name the folder with the charts by CHARTS=...")
    with TemporaryDirectory() as name:
        unpacked, ready = Path(name) / "unpacked", Path(name) / "ready"
        unpacked.mkdir()
        for archive in sorted(folder.glob("*.tgz")):
            with tarfile.open(archive) as content:
                content.extractall(unpacked / archive.stem, filter="data")
        there = [path.parent for root in (unpacked, folder) for path in sorted(root.rglob(FILE))]
        chosen = {chart: _chosen(chart, accepted_versions(chart), there, folder) for chart in pins.CHART_KEYS}
        yield {
            chart: Chart(chart, _version(path), _copied(path, ready / chart, there, folder))
            for chart, path in chosen.items()
        }


def accepted_versions(name: str) -> tuple[str, ...]:
    """The version that helm-releases/ installs, then the version of the recorded keys if it differs."""
    installed, record = pins.CHART_KEYS[name]
    return tuple(dict.fromkeys((installed, record.removeprefix(f"{name}-").removesuffix(".txt"))))


def _chosen(name: str, versions: tuple[str, ...], there: list[Path], folder: Path) -> Path:
    found = {_version(path): path for path in reversed(there) if document_of(path / FILE).get("name") == name}
    for version in versions:
        if version in found:
            return found[version]
    wanted = " or ".join(versions)
    if found:
        raise Unusable(f"{folder} has the chart {name} {', '.join(sorted(found))}: {wanted} is needed.")
    raise Unusable(f"{folder} has no chart {name}: put the folder or archive of {name} {wanted} there.")


def _version(path: Path) -> str:
    return str(document_of(path / FILE)["version"])


def _copied(path: Path, into: Path, there: list[Path], folder: Path) -> Path:
    """Copy a chart and add its dependencies, which a chart from git does not contain."""
    # the NGINX chart links its CRDs, which are not installed, from a folder beside the chart
    shutil.copytree(path, into, ignore_dangling_symlinks=True)
    for needed in document_of(path / FILE).get("dependencies") or []:
        inside = into / "charts" / needed["name"]
        if not inside.exists() and not list((into / "charts").glob(f"{needed['name']}-*.tgz")):
            shutil.copytree(_chosen(needed["name"], (str(needed["version"]),), there, folder), inside)
    return into
