"""Compares the stand-in charts with the real ones: `python -m minicluster.stand_ins.chart_comparison FOLDER`.

FOLDER contains the real charts. Each of our values is changed once, and the change must affect the same fields of the
rendered objects in both charts. The chart of NGINX is not compared, because its stand-in runs another program; tests of
this program cover each behaviour (README.md).
"""

import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minicluster.stand_ins import chart_archives
from ops.charts import source
from ops.charts.effects import Key, ValueSet, leaves, value_sets
from ops.command import Unusable, command_line
from sluice_planner.kubernetes_objects import documents

NOT_TESTED = re.compile(r"^\| (?P<chart>[\w-]+) \| `(?P<value>[\w.-]+)` \|", re.MULTILINE)
# names of two Deployments in KEDA's manifests -> their names in KEDA's chart
NAMES = {"keda-metrics-apiserver": "keda-operator-metrics-apiserver", "keda-admission": "keda-admission-webhooks"}
REFUSED = {("refused",): True}

Leaf = tuple[Any, ...]
"""The path of a value in the rendered objects, for example ("StatefulSet", "redis", "spec", "replicas")."""


def not_tested() -> set[tuple[str, str]]:
    """The pairs (chart, value) that README.md lists as not compared."""
    text = (chart_archives.FOLDER / "README.md").read_text()
    return {(found["chart"], found["value"]) for found in NOT_TESTED.finditer(text)}


def differences(real: ValueSet, own: ValueSet) -> Iterator[str]:
    """A line for each value that affects different fields in the two charts, with one such field."""
    before = [_rendered(each, each.release.values) for each in (real, own)]
    keys = [key for key, _ in leaves(real.release.values) if (real.chart.name, ".".join(key)) not in not_tested()]

    def changes(key: Key) -> list[set[tuple[Leaf, str]]]:
        values = changed(real.release.values, key)
        return [_changes(old, _rendered(each, values)) for old, each in zip(before, (real, own), strict=True)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for key, (theirs, ours) in zip(keys, pool.map(changes, keys), strict=True):
            for which, only in (("the chart", theirs - ours), ("the stand-in", ours - theirs)):
                if only:
                    where, value = min(only, key=str)
                    yield f"{'.'.join(key)}: only {which} changes {'.'.join(map(str, where))} to {value}"


def changed(values: dict[str, Any], key: Key) -> dict[str, Any]:
    """A copy of the values with another value of the same type at a key."""
    copy = deepcopy(values)
    inner = copy
    for name in key[:-1]:
        inner = inner[name]
    inner[key[-1]] = _other(inner[key[-1]])
    return copy


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return str(int(value) + 1) if value.isdigit() else f"{value}x"
    if isinstance(value, list):
        return [] if value else [{"name": "other"}]
    return 7  # instead of null


def _rendered(each: ValueSet, values: dict[str, Any]) -> dict[Leaf, Any]:
    try:
        bodies = [body for body in documents(each.template(values)) if body["kind"] != "CustomResourceDefinition"]
    except Unusable:
        return REFUSED
    return {
        (body["kind"], *(NAMES.get(name, name) for name in (body["metadata"]["name"], *where))): value
        for body in bodies
        for where, value in _leaves(body)
        if not _differs_anyway(where)
    }


def _differs_anyway(where: Leaf) -> bool:
    """Whether the stand-in always differs in this field: in labels of objects and in commands of containers."""
    return where[:2] in {("metadata", "labels"), ("metadata", "namespace"), ("metadata", "name")} or (
        "command" in where and "lifecycle" not in where
    )


def _leaves(value: Any, where: Leaf = ()) -> Iterator[tuple[Leaf, Any]]:
    """(path, value) of every scalar. Keys of list items are their names or contents; keys of lines are their texts."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*where, name))
    elif isinstance(value, list) and value:
        for inner in value:
            named = isinstance(inner, dict) and "name" in inner
            text = inner["name"] if named else json.dumps(inner, sort_keys=True)
            yield from _leaves(inner, (*where, text)) if named else [((*where, text), True)]
    elif isinstance(value, str) and "\n" in value:
        yield from (((*where, line.strip()), True) for line in value.splitlines() if line.strip())
    else:
        yield where, value


def _changes(before: dict[Leaf, Any], after: dict[Leaf, Any]) -> set[tuple[Leaf, str]]:
    there = before.keys() | after.keys() if after is not REFUSED else {("refused",)}
    return {(where, str(after.get(where))) for where in there if before.get(where) != after.get(where)}


def main() -> None:
    """Print the differences between the stand-ins and the real charts. Raises Unusable if there are any."""
    count = 0
    with source.charts(Path(sys.argv[1]).absolute()) as real, TemporaryDirectory() as name:
        for archive in chart_archives.package(Path(name)):
            with tarfile.open(archive) as content:
                content.extractall(name, filter="data")
        for each in value_sets(real):
            if each.chart.name == "nginx-ingress":
                continue
            chart = source.Chart(each.chart.name, each.chart.version, Path(name) / each.chart.name)
            found = list(differences(each, ValueSet(each.folder, each.release, chart)))
            print(f"{each}: the stand-in {'differs' if found else 'has the same effects for each value'}", flush=True)
            print("".join(f"  {line}\n" for line in found), end="", flush=True)
            count += len(found)
    if count:
        raise Unusable(f"{count} differences, see above: change the stand-in, or list the value in its README.md.")


if __name__ == "__main__":
    command_line(main)
