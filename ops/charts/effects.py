"""Renders each set of our values with the real charts: the result is valid, and each value changes it."""

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
from ops.validate import blame, placement, policy, schemas
from ops.validate.pods import pods
from ops.validate.references import matches
from ops.validate.tree import Finding, Object, Tree, render
from sluice_planner.kubernetes_objects import document_of, documents

TIMEOUT_S = 120
BASE = "helm-releases"
# values without an effect: chart -> value -> why it is set
LISTED = Path(__file__).with_name("no-effect.yaml")
# kinds without a schema: a chart's own CRDs, and the registration of KEDA's metrics API
WITHOUT_SCHEMA = {"CustomResourceDefinition", "APIService"}
# kinds that helm deletes with the release, and what would be lost
PRECIOUS = {"Namespace": "everything in it", "PersistentVolumeClaim": "the volume", "Secret": "the credential"}
KEEP = "helm.sh/resource-policy"

Key = tuple[str, ...]
"""Where a value is: ("controller", "service", "type")."""


@dataclass(frozen=True)
class ValueSet:
    """The values that one folder, helm-releases or one of clusters/, gives to one chart."""

    folder: str
    release: platform.Release
    chart: Chart

    def __str__(self) -> str:
        return f"{self.chart.name} {self.chart.version}, {self.folder}"

    def template(self, values: dict[str, Any]) -> str:
        """What helm renders from these values, without comments and empty lines."""
        where = ("template", self.release.name, self.chart.folder, f"--namespace={self.release.namespace}")
        command: tuple[str | Path, ...] = (*where, *self.release.options, "--values=-")
        text = output(built("helm"), *command, text=yaml.safe_dump(values), timeout_s=TIMEOUT_S)
        lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Result:
    """What one set of values showed.

    `ineffective` are the values without which the chart renders the same; `defaults` those of them that are the chart's
    own defaults, which another version of the chart may change.
    """

    values: ValueSet
    objects: int
    ineffective: frozenset[Key]
    defaults: frozenset[Key]
    faults: tuple[str, ...]

    def unexplained(self, base: "Result") -> set[Key]:
        """The ineffective values that are neither defaults nor inherited from `base`, where they have an effect."""
        ours, theirs = dict(leaves(self.values.release.values)), dict(leaves(base.values.release.values))
        inherited = {key for key in theirs.keys() & ours.keys() - base.ineffective if ours[key] == theirs[key]}
        return set(self.ineffective - self.defaults - inherited)

    def report(self, base: "Result", listed: Iterable[str]) -> Iterator[str]:
        """A summary line, then each fault."""
        names = {".".join(key) for key in self.unexplained(base)}
        count, defaults, reasons = len(list(leaves(self.values.release.values))), len(self.defaults), len(names)
        switched_off = len(self.ineffective) - defaults - reasons
        yield (
            f"{self.values}: {self.objects} objects, {count} values. Effect: {count - len(self.ineffective)}, chart's "
            f"default: {defaults}, switched off here: {switched_off}, listed: {len(names & set(listed))}"
        )
        yield from (f"  {name}: the chart renders the same without it" for name in sorted(names - set(listed)))
        yield from (f"  {fault}" for fault in self.faults)


def value_sets(charts: dict[str, Chart]) -> list[ValueSet]:
    """Each different set of values once, by the first folder that has it; helm-releases comes first."""
    tree = render(ROOT)
    folders = {each.target for each in tree.objects("HelmRelease")}
    found: dict[str, ValueSet] = {}
    for folder in sorted(folders, key=lambda name: (name != BASE, len(blame.folders(ROOT, name)), name)):
        for release in platform.releases([each.body for each in tree.objects(target=folder)]):
            found.setdefault(repr(release), ValueSet(folder, release, charts[release.name]))
    return list(found.values())


def check(each: ValueSet) -> Result:
    """Render one set of values with and without each value."""
    text = each.template(each.release.values)
    objects = [Object("the rendered chart", body, str(each)) for body in documents(text)]
    known = [one for one in objects if one.kind not in WITHOUT_SCHEMA]
    found = [*schemas.check(Tree(ROOT, {str(each): known}, [])), *(one for body in known for one in _object(body))]
    titles = {f"{one.kind}/{one.name}".lower() for one in objects}
    faults = [str(finding) for finding in found]
    faults += [
        f"postRenderers: the chart has no {target}" for target, _ in each.release.patches if target not in titles
    ]
    ineffective = frozenset(_ineffective(each, text))
    chart, ours = dict(leaves(each.chart.defaults)), dict(leaves(each.release.values))
    defaults = frozenset(key for key in ineffective if key in chart and chart[key] == ours[key])
    return Result(each, len(objects), ineffective, defaults, tuple(dict.fromkeys(faults)))


def unused(results: list[tuple[Result, Result]], listed: dict[str, dict[str, str]]) -> Iterator[str]:
    """The entries of the list that no set of values needs; each result is beside the one of helm-releases."""
    for chart, reasons in listed.items():
        mine = [(each, base) for each, base in results if each.values.chart.name == chart]
        needed = {".".join(key) for each, base in mine for key in each.unexplained(base)}
        yield from (
            f"{LISTED.name}: {chart}: {name}: is not set, or has an effect: remove it from the list"
            for name in sorted(reasons.keys() - needed)
        )


def reasons() -> dict[str, dict[str, str]]:
    """The list: chart -> value -> reason."""
    return dict(document_of(LISTED) or {})


def _object(each: Object) -> Iterator[Finding]:
    """What every pod and every volume of ours has, asked of a chart's objects."""
    yield from placement.workload(each)
    for pod in pods(each):
        for where, container in pod.containers():
            yield from policy.resources(each, f"{where}.resources", container.get("resources") or {})
        for number, one in enumerate(pod.spec.get("topologySpreadConstraints") or []):
            if not matches(one.get("labelSelector") or {}, pod.labels):
                yield each.finding(f"{pod.path}.topologySpreadConstraints.{number}", "does not select its own pods")
    retention = each.spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for when in (name for name, policy_ in retention.items() if policy_ != "Retain"):
        yield each.finding(f"spec.persistentVolumeClaimRetentionPolicy.{when}", "must be Retain: it deletes volumes")
    if each.kind in PRECIOUS and (each.body["metadata"].get("annotations") or {}).get(KEEP) != "keep":
        yield each.finding("metadata", f"is deleted with the release, and with it {PRECIOUS[each.kind]}")


def _ineffective(each: ValueSet, text: str) -> Iterator[Key]:
    keys = [key for key, _ in leaves(each.release.values)]

    def rendered(key: Key) -> str | None:
        try:
            return each.template(without(each.release.values, key))
        except Unusable:  # the chart refuses to render without it
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = pool.map(rendered, keys)
        yield from (key for key, other in zip(keys, texts, strict=True) if other == text)


def leaves(values: dict[str, Any], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value that is not a map, or is an empty one."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def without(values: dict[str, Any], key: Key) -> dict[str, Any]:
    """All values but one."""
    left = deepcopy(values)
    inner = left
    for name in key[:-1]:
        inner = inner[name]
    del inner[key[-1]]
    return left
