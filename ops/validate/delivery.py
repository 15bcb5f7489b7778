"""Rules for Flux's objects: paths, sources, the order of the Kustomizations, and the checksums of Secrets.

tests/manifests/test_delivery.py tests the CEL expressions of the health check in clusters/local.
"""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from ops import sops
from ops.validate.allowed_values import Wanted, must
from ops.validate.tree import KUSTOMIZATION, Finding, Object, Tree, walk
from sluice_planner.durations import parse_duration

Place = tuple[str, str]
"""(namespace, name)."""

# the fields of each Kustomization of Flux
KUSTOMIZATIONS: Wanted = {
    "wait": ([True], "what depends on it would start before it is healthy"),
    "prune": ([True], "what is removed from git would stay in the cluster"),
    "decryption.provider": (["sops"], "the Secrets that it applies are encrypted by SOPS"),
    "targetNamespace": ([None], "every object names its own namespace"),
    "suspend": ([None, False], "it would no longer follow git"),
}
# name of a release -> API group of the custom resources that its chart installs
BROUGHT = {"keda": "keda.sh"}


def check(tree: Tree) -> Iterator[Finding]:
    """Check every Kustomization and HelmRelease of Flux."""
    for path in sops.differences(tree.root):
        message = "differs from the encrypted files beside it: run `make secrets FLUX=1`"
        yield Finding(str(path.relative_to(tree.root)), "Component", "text", message)
    for each in tree.objects("Kustomization"):
        if not (tree.root / _folder(each) / KUSTOMIZATION).exists():
            yield each.finding("spec.path", f"there is no {KUSTOMIZATION} in {_folder(each)}")
        yield from must(each, "spec", each.spec, KUSTOMIZATIONS)
        yield from _patience(tree, each)
        yield from _order(tree, each)
        yield from _health(tree, each)
    for kind in ("Kustomization", "HelmRelease"):
        for each in tree.objects(kind):
            yield from _names(tree, each)
        yield from _circle(tree, kind)


def _folder(each: Object) -> str:
    """The folder that a Kustomization of Flux applies."""
    return str(each.spec.get("path", "./")).removeprefix("./").rstrip("/")


def _applied(tree: Tree, each: Object) -> list[Object]:
    """The objects that a Kustomization of Flux applies; none if its folder was not rendered."""
    return list(tree.objects(target=_folder(each)))


def _before(each: Object) -> list[Place]:
    return [(one.get("namespace", each.namespace), one["name"]) for one in each.spec.get("dependsOn") or []]


def _names(tree: Tree, each: Object) -> Iterator[Finding]:
    """The sources and dependencies of an object are in the same target: Flux would wait for ever for a missing one."""
    named = [(f"spec.dependsOn.{number}", each.kind, place) for number, place in enumerate(_before(each))]
    for path, value in walk(each.spec, "spec"):
        if path.endswith(("sourceRef", "chartRef")):
            named.append((path, value["kind"], (value.get("namespace", each.namespace), value["name"])))
    for path, kind, place in named:
        if place not in {(one.namespace, one.name) for one in tree.objects(kind, target=each.target)}:
            yield each.finding(path, f"there is no {kind} {'/'.join(place)}")


def _circle(tree: Tree, kind: str) -> Iterator[Finding]:
    objects = {(each.namespace, each.name): each for each in tree.objects(kind)}
    try:
        TopologicalSorter({place: _before(each) for place, each in objects.items()}).prepare()
    except CycleError as exc:
        names = " -> ".join(name for _, name in exc.args[1])
        yield objects[exc.args[1][0]].finding("spec.dependsOn", f"each waits for the next, for ever: {names}")


def _patience(tree: Tree, each: Object) -> Iterator[Finding]:
    """The timeout of a Kustomization is above the timeouts of its HelmReleases."""
    releases = (one for one in _applied(tree, each) if one.kind == "HelmRelease")
    longest_s = max(((parse_duration(one.spec.get("timeout", "5m")) or 0) for one in releases), default=0)
    if (parse_duration(each.spec.get("timeout", each.spec.get("interval", 0))) or 0) <= longest_s:
        yield each.finding("spec.timeout", f"must be above the longest of its releases, {longest_s:g} s")


def _order(tree: Tree, each: Object) -> Iterator[Finding]:
    """A Kustomization depends on the Kustomizations that create the namespaces and custom resources of its objects."""
    there = {(one.namespace, one.name): one for one in tree.objects("Kustomization", target=each.target)}
    waiting, awaited = [(each.namespace, each.name)], set()
    while waiting:
        place = waiting.pop()
        awaited.add(place)
        waiting += [one for one in _before(there[place]) if one in there.keys() - awaited]
    needed = {need for one in _applied(tree, each) for need in (("namespace", one.namespace), ("kinds of", one.group))}
    for place, other in there.items():
        for what, name in sorted(_made(_applied(tree, other)) & needed) if place not in awaited else ():
            yield each.finding("spec.dependsOn", f"must name {other.name}, which makes the {what} {name}")


def _made(objects: list[Object]) -> set[tuple[str, str]]:
    namespaces = {("namespace", one.name) for one in objects if one.kind == "Namespace"}
    return namespaces | {("kinds of", BROUGHT[one.name]) for one in objects if one.name in BROUGHT}


def _health(tree: Tree, each: Object) -> Iterator[Finding]:
    checked = {one.get("kind") for one in each.spec.get("healthCheckExprs") or []}
    if any(one.kind == "ScaledObject" for one in _applied(tree, each)) and "ScaledObject" not in checked:
        yield each.finding("spec.healthCheckExprs", "must say when a ScaledObject is Ready: Flux does not know")
