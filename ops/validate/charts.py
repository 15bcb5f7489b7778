"""Rules for HelmReleases: the chart has an exact, tested version, and the chart declares every value.

The schemas of the charts accept misspelt keys, and KEDA's chart has no schema. Therefore the key paths and types of
each chart are recorded in chart-keys.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from ops import pins
from ops.validate.tree import Finding, Object, Tree

TYPES = {bool: "bool", int: "number", float: "number", str: "text", list: "list", dict: "map"}
EXACT = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")


def check(tree: Tree) -> Iterator[Finding]:
    """Check every HelmRelease."""
    for each in tree.objects("HelmRelease"):
        yield from _version(tree, each)
        if each.name in pins.CHART_KEYS:
            yield from _values(each, known_keys(each.name))
        else:
            yield each.finding(
                "spec.values",
                "no record of this chart's value keys: add one to ops/pins.py",
            )


def known_keys(chart: str) -> dict[str, str]:
    """Key path -> types (`number|text`) of a chart's values. Paths of maps with any keys end in `.*`."""
    lines = (pins.CHART_KEYS_FOLDER / pins.CHART_KEYS[chart][1]).read_text().splitlines()
    return {key: types for key, _, types in (line.partition(" ") for line in lines if line[:1] not in {"", "#"})}


def version_of(tree: Tree, each: Object) -> tuple[Object, str, str]:
    """(object that sets the version, field, version) of a release's chart."""
    if "chart" in each.spec:
        return each, "spec.chart.spec.version", str(each.spec["chart"]["spec"].get("version", "none"))
    name = each.spec.get("chartRef", {}).get("name", "none")
    for source in tree.objects("OCIRepository", target=each.target):
        if (source.namespace, source.name) == (each.namespace, name):
            return source, "spec.ref.tag", str(source.spec.get("ref", {}).get("tag", "none"))
    return each, "spec.chartRef.name", f"of {name}, which does not exist"


def _version(tree: Tree, each: Object) -> Iterator[Finding]:
    holder, field, version = version_of(tree, each)
    tested = pins.CHART_KEYS.get(each.name, ("",))[0]
    if not EXACT.fullmatch(version):
        yield holder.finding(field, f"the version {version} is not exact")
    elif version != tested:
        yield holder.finding(field, f"{version} is not the tested version ({tested}, in ops/pins.py)")


def _values(each: Object, known: dict[str, str]) -> Iterator[Finding]:
    for path, value in _leaves(each.spec.get("values", {})):
        types = known.get(path) or ("map" if f"{path}.*" in known else None)
        if types is None and not _is_in_open_map(known, path):
            near = difflib.get_close_matches(path, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield each.finding(f"spec.values.{path}", f"the chart has no such value{hint}")
        elif types not in {None, "any"} and value is not None and TYPES[type(value)] not in str(types).split("|"):
            message = f"must be a {str(types).replace('|', ' or a ')}, not the {TYPES[type(value)]} {value!r}"
            yield each.finding(f"spec.values.{path}", message)


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _is_in_open_map(known: dict[str, str], path: str) -> bool:
    parts = path.split(".")
    return any(f"{'.'.join(parts[:end])}.*" in known for end in range(1, len(parts)))
