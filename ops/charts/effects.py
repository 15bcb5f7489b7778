"""Renders the real charts with each set of our values. Objects must be valid, and each value must have an effect."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops import platform
from ops.charts.source import Chart
from ops.command import ROOT, Unusable, output
from ops.tools import built
from ops.validate import attribution, placement, policy, schemas
from ops.validate.pods import pods
from ops.validate.references import counts
from ops.validate.tree import Finding, Object, Tree, render
from sluice_planner.kubernetes_objects import document_of, documents

TIMEOUT_S = 120
BASE = "helm-releases"
# list of the values that are set although they have no effect: chart -> value -> reason
LISTED = Path(__file__).with_name("no-effect.yaml")
# kinds for which `make validate` has no schema: the CRDs of a chart, and the APIService of KEDA's metrics server
WITHOUT_SCHEMA = {"CustomResourceDefinition", "APIService"}
# kinds whose deletion with the release would lose data: kind -> the data
PRECIOUS = {"Namespace": "everything in it", "PersistentVolumeClaim": "the volume", "Secret": "the credential"}
KEEP = "helm.sh/resource-policy"

Key = tuple[str, ...]
"""The path of a value, for example ("controller", "service", "type")."""


@dataclass(frozen=True)
class ValueSet:
    """The values that one folder, helm-releases or one of clusters/, gives to one chart."""

    folder: str
    release: platform.Release
    chart: Chart

    def __str__(self) -> str:
        return f"{self.chart.name} {self.chart.version}, {self.folder}"

    def template(self, values: dict[str, Any]) -> str:
        """The output of `helm template` for `values`, without comments and empty lines."""
        where = ("template", self.release.name, self.chart.folder, f"--namespace={self.release.namespace}")
        command: tuple[str | Path, ...] = (*where, *self.release.options, "--values=-")
        text = output(built("helm"), *command, text=yaml.safe_dump(values), timeout_s=TIMEOUT_S)
        lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Result:
    """The result of checking one set of values.

    objects       number of rendered objects
    ineffective   the values without which the chart renders the same text
    defaults      the ineffective values that equal the chart's defaults; another version may change the defaults
    faults        one sentence per invalid object
    """

    values: ValueSet
    objects: int
    ineffective: frozenset[Key]
    defaults: frozenset[Key]
    faults: tuple[str, ...]

    def unexplained(self, base: "Result") -> set[Key]:
        """The ineffective values that are neither defaults nor inherited from `base`.

        An inherited value has an effect in `base`, the result of helm-releases for the same chart.
        """
        ours, theirs = dict(leaves(self.values.release.values)), dict(leaves(base.values.release.values))
        inherited = {key for key in theirs.keys() & ours.keys() - base.ineffective if ours[key] == theirs[key]}
        return set(self.ineffective - self.defaults - inherited)

    def report(self, base: "Result", listed: Iterable[str]) -> Iterator[str]:
        """A summary line, then a line for each unlisted ineffective value and for each fault."""
        names = {".".join(key) for key in self.unexplained(base)}
        count, defaults, reasons = len(list(leaves(self.values.release.values))), len(self.defaults), len(names)
        switched_off = len(self.ineffective) - defaults - reasons
        yield (
            f"{self.values}: {self.objects} objects, {count} values. Effect: {count - len(self.ineffective)}, chart's "
            f"default: {defaults}, switched off here: {switched_off}, listed: {len(names & set(listed))}"
        )
        yield from (f"  {name}: the chart renders the same without it" for name in sorted(names - set(listed)))
        yield from (f"  {fault}" for fault in self.faults)


def value_sets(charts: dict[str, Chart], root: Path = ROOT) -> list[ValueSet]:
    """Each distinct set of values once, from the first folder that has it; helm-releases comes first."""
    tree = render(root)
    folders = {each.target for each in tree.objects("HelmRelease")}
    found: dict[str, ValueSet] = {}
    for folder in sorted(folders, key=lambda name: (name != BASE, len(attribution.folders(root, name)), name)):
        for release in platform.releases([each.body for each in tree.objects(target=folder)]):
            found.setdefault(repr(release), ValueSet(folder, release, charts[release.name]))
    return list(found.values())


def check(each: ValueSet) -> Result:
    """Render a chart with one set of values, and again without each value. Raises Unusable if helm fails."""
    text = each.template(each.release.values)
    objects = rendered(each, text)
    ineffective = frozenset(_ineffective(each, text))
    chart, ours = dict(leaves(each.chart.defaults)), dict(leaves(each.release.values))
    defaults = frozenset(key for key in ineffective if key in chart and chart[key] == ours[key])
    return Result(each, len(objects), ineffective, defaults, faults(each, objects))


def rendered(each: ValueSet, text: str) -> list[Object]:
    """The objects in what helm rendered."""
    return [Object("the rendered chart", body, str(each)) for body in documents(text)]


def faults(each: ValueSet, objects: list[Object]) -> tuple[str, ...]:
    """The faults of the objects that a chart renders, by their schemas and by the rules for all our pods."""
    known = [one for one in objects if one.kind not in WITHOUT_SCHEMA]
    found = [*schemas.check(Tree(ROOT, {str(each): known}, [])), *(one for body in known for one in _object(body))]
    titles = {f"{one.kind}/{one.name}".lower() for one in objects}
    missing = [f"postRenderers: the chart has no {name}" for name, _ in each.release.patches if name not in titles]
    return tuple(dict.fromkeys([*map(str, found), *missing]))


def unused(results: list[tuple[Result, Result]], listed: dict[str, dict[str, str]]) -> Iterator[str]:
    """A line for each entry of the list that no set of values needs. `results` are pairs (result, its base)."""
    for chart, reasons in listed.items():
        mine = [(each, base) for each, base in results if each.values.chart.name == chart]
        needed = {".".join(key) for each, base in mine for key in each.unexplained(base)}
        yield from (
            f"{LISTED.name}: {chart}: {name}: is not set, or has an effect: remove it from the list"
            for name in sorted(reasons.keys() - needed)
        )


def reasons() -> dict[str, dict[str, str]]:
    """The list of values without an effect: chart -> value -> reason."""
    return dict(document_of(LISTED) or {})


def _object(each: Object) -> Iterator[Finding]:
    """Check a chart's object against the rules for our own pods and volumes."""
    yield from placement.workload(each)
    for pod in pods(each):
        for where, container in pod.containers():
            yield from policy.resources(each, f"{where}.resources", container.get("resources") or {})
        for number, one in enumerate(pod.spec.get("topologySpreadConstraints") or []):
            if not counts(one, pod.labels):
                yield each.finding(f"{pod.path}.topologySpreadConstraints.{number}", "does not select its own pods")
    retention = each.spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for when in (name for name, policy_ in retention.items() if policy_ != "Retain"):
        yield each.finding(
            f"spec.persistentVolumeClaimRetentionPolicy.{when}", "must be Retain: other values delete volumes"
        )
    if each.kind in PRECIOUS and (each.body["metadata"].get("annotations") or {}).get(KEEP) != "keep":
        yield each.finding("metadata", f"is deleted with the release, and with it {PRECIOUS[each.kind]}")


def _ineffective(each: ValueSet, text: str) -> Iterator[Key]:
    keys = [key for key, _ in leaves(each.release.values)]

    def text_without(key: Key) -> str | None:
        try:
            return each.template(without(each.release.values, key))
        except Unusable:  # the chart cannot be rendered without a required value
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = pool.map(text_without, keys)
        yield from (key for key, other in zip(keys, texts, strict=True) if other == text)


def leaves(values: dict[str, Any], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Path and value of each value that is not a map, or is an empty map."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def without(values: dict[str, Any], key: Key) -> dict[str, Any]:
    """A copy of the values without the one at this path."""
    left = deepcopy(values)
    inner = left
    for name in key[:-1]:
        inner = inner[name]
    del inner[key[-1]]
    return left
