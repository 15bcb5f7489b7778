"""Rules for HelmReleases: exact versions that were tried, and values that their chart knows.

The charts' own schemas let misspelt keys pass; a list of every key path does not.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from deploy import pins
from deploy.validate.tree import Finding, Object, Tree

EXACT = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")


def check(tree: Tree) -> Iterator[Finding]:
    """Every HelmRelease."""
    for each in tree.objects("HelmRelease"):
        yield from _version(tree, each)
        if each.name in pins.CHART_KEYS:
            yield from _values(each, known_keys(each.name))
        else:
            yield each.finding("spec.values", "no record of this chart's value keys: add one to deploy/pins.py")


def known_keys(chart: str) -> set[str]:
    """The key paths of a chart's values; those of open maps end in `.*`."""
    lines = (pins.CHART_KEYS_FOLDER / pins.CHART_KEYS[chart][1]).read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def version_of(tree: Tree, each: Object) -> tuple[Object, str, str]:
    """(the object that has it, field, version) of a release's chart."""
    if "chart" in each.spec:
        return each, "spec.chart.spec.version", str(each.spec["chart"]["spec"].get("version", "none"))
    name = each.spec.get("chartRef", {}).get("name", "none")
    for source in tree.objects("OCIRepository", target=each.target):
        if (source.namespace, source.name) == (each.namespace, name):
            return source, "spec.ref.tag", str(source.spec.get("ref", {}).get("tag", "none"))
    return each, "spec.chartRef.name", f"of {name}, which is not there"


def _version(tree: Tree, each: Object) -> Iterator[Finding]:
    holder, field, version = version_of(tree, each)
    tested = pins.CHART_KEYS.get(each.name, ("",))[0]
    if not EXACT.fullmatch(version):
        yield holder.finding(field, f"the version {version} is not exact")
    elif version != tested:
        yield holder.finding(field, f"{version} is not the version that was tried ({tested}, in deploy/pins.py)")


def _values(each: Object, known: set[str]) -> Iterator[Finding]:
    for path in _paths(each.spec.get("values", {})):
        if not _knows(known, path):
            near = difflib.get_close_matches(path, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield each.finding(f"spec.values.{path}", f"the chart has no such value{hint}")


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{path}.")
        else:
            yield path


def _knows(known: set[str], path: str) -> bool:
    parts = path.split(".")
    parents = (".".join(parts[:end]) for end in range(1, len(parts)))
    return path in known or f"{path}.*" in known or any(f"{parent}.*" in known for parent in parents)
