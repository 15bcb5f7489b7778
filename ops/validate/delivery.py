"""Rules for Flux's objects: paths, sources, dependencies and time limits, and the lists of encrypted Secrets.

tests/manifests/test_delivery.py tests the CEL expressions of the health check in clusters/local.
"""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from ops import sops
from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.tree import KUSTOMIZATION, Finding, Object, Tree, walk
from sluice_planner.durations import parse_duration

NamespacedName = tuple[str, str]
"""(namespace, name)."""

# the fields of a Flux Kustomization
KUSTOMIZATIONS: AllowedValues = {
    "wait": ([True], "dependent objects would be applied before this one is healthy"),
    "prune": ([True], "objects that are removed from git would stay in the cluster"),
    "decryption.provider": (["sops"], "the Secrets in its folder are encrypted by SOPS"),
    "targetNamespace": ([None], "every object sets its own namespace"),
    "suspend": ([None, False], "Flux would no longer apply changes from git"),
}
# name of a release -> API group of the custom resources that its chart installs
INSTALLED_GROUPS = {"keda": "keda.sh"}


def check(tree: Tree) -> Iterator[Finding]:
    """Check every Flux Kustomization and HelmRelease."""
    for path in sops.differences(tree.root):
        message = "differs from the list of encrypted files in its folder: run `make secrets FLUX=1`"
        yield Finding(str(path.relative_to(tree.root)), "Component", "text", message)
    for each in tree.objects("Kustomization"):
        if not (tree.root / _folder(each) / KUSTOMIZATION).exists():
            yield each.finding("spec.path", f"there is no {KUSTOMIZATION} in {_folder(each)}")
        yield from check_values(each, "spec", each.spec, KUSTOMIZATIONS)
        yield from _timeout(tree, each)
        yield from _dependency_order(tree, each)
        yield from _health_checks(tree, each)
    for kind in ("Kustomization", "HelmRelease"):
        for each in tree.objects(kind):
            yield from _references(tree, each)
        yield from _cycle(tree, kind)


def _folder(each: Object) -> str:
    """The folder that a Flux Kustomization applies."""
    return str(each.spec.get("path", "./")).removeprefix("./").rstrip("/")


def _applied(tree: Tree, each: Object) -> list[Object]:
    """The objects that a Flux Kustomization applies; empty if its folder was not rendered."""
    return list(tree.objects(target=_folder(each)))


def _dependencies(each: Object) -> list[NamespacedName]:
    return [(one.get("namespace", each.namespace), one["name"]) for one in each.spec.get("dependsOn") or []]


def _references(tree: Tree, each: Object) -> Iterator[Finding]:
    """Sources and dependencies of an object exist in the same target: Flux would wait forever for a missing one."""
    named = [(f"spec.dependsOn.{number}", each.kind, place) for number, place in enumerate(_dependencies(each))]
    for path, value in walk(each.spec, "spec"):
        if path.endswith(("sourceRef", "chartRef")):
            named.append((path, value["kind"], (value.get("namespace", each.namespace), value["name"])))
    for path, kind, place in named:
        if place not in {(one.namespace, one.name) for one in tree.objects(kind, target=each.target)}:
            yield each.finding(path, f"there is no {kind} {'/'.join(place)}")


def _cycle(tree: Tree, kind: str) -> Iterator[Finding]:
    objects = {(each.namespace, each.name): each for each in tree.objects(kind)}
    try:
        TopologicalSorter({place: _dependencies(each) for place, each in objects.items()}).prepare()
    except CycleError as exc:
        names = " -> ".join(name for _, name in exc.args[1])
        yield objects[exc.args[1][0]].finding(
            "spec.dependsOn", f"dependency cycle, so Flux would wait forever: {names}"
        )


def _timeout(tree: Tree, each: Object) -> Iterator[Finding]:
    """The timeout of a Flux Kustomization is above the timeouts of its HelmReleases."""
    releases = (one for one in _applied(tree, each) if one.kind == "HelmRelease")
    longest_s = max(((parse_duration(one.spec.get("timeout", "5m")) or 0) for one in releases), default=0)
    if (parse_duration(each.spec.get("timeout", each.spec.get("interval", 0))) or 0) <= longest_s:
        yield each.finding("spec.timeout", f"must be above the longest timeout of its HelmReleases, {longest_s:g} s")


def _dependency_order(tree: Tree, each: Object) -> Iterator[Finding]:
    """A Kustomization depends on the Kustomizations that create the namespaces and the CRDs of its objects."""
    kustomizations = {(one.namespace, one.name): one for one in tree.objects("Kustomization", target=each.target)}
    unvisited, earlier = [(each.namespace, each.name)], set()
    while unvisited:
        name = unvisited.pop()
        earlier.add(name)
        unvisited += [one for one in _dependencies(kustomizations[name]) if one in kustomizations.keys() - earlier]
    needed = {need for one in _applied(tree, each) for need in (("namespace", one.namespace), ("CRDs of", one.group))}
    for name, other in kustomizations.items():
        for what, created in sorted(_created(_applied(tree, other)) & needed) if name not in earlier else ():
            yield each.finding("spec.dependsOn", f"must name {other.name}, which creates the {what} {created}")


def _created(objects: list[Object]) -> set[tuple[str, str]]:
    """(what, name) of the namespaces and of the API groups of CRDs that these objects create."""
    namespaces = {("namespace", one.name) for one in objects if one.kind == "Namespace"}
    return namespaces | {("CRDs of", INSTALLED_GROUPS[one.name]) for one in objects if one.name in INSTALLED_GROUPS}


def _health_checks(tree: Tree, each: Object) -> Iterator[Finding]:
    checked = {one.get("kind") for one in each.spec.get("healthCheckExprs") or []}
    if any(one.kind == "ScaledObject" for one in _applied(tree, each)) and "ScaledObject" not in checked:
        yield each.finding("spec.healthCheckExprs", "must define when a ScaledObject is ready: Flux has no rule for it")
