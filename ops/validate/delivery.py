"""Rules for what Flux reads: paths, sources, the order of its Kustomizations, health checks, the sums of Secrets."""

from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cel_expr_python import cel

from ops import sops
from ops.validate.tree import KUSTOMIZATION, Finding, Object, Tree, walk
from ops.validate.wanted import Wanted, must
from sluice_planner.durations import parse_duration

SOURCES = ("sourceRef", "chartRef")
# what each Kustomization of Flux must say, and why
WANTED: Wanted = {
    "wait": ([True], "what depends on it would start before it is healthy"),
    "prune": ([True], "what git no longer has would stay in the cluster"),
    "decryption.provider": (["sops"], "the Secrets that it applies are encrypted by SOPS"),
    "targetNamespace": ([None], "every object says its own namespace"),
    "suspend": ([None, False], "nothing of it would follow git any more"),
}
# the groups of the custom resources that a chart brings, by the name of its release
BROUGHT = {"keda": "keda.sh"}
# what an expression may name: the fields of any object
VARIABLES = ("apiVersion", "kind", "metadata", "spec", "status")


def check(tree: Tree) -> Iterator[Finding]:
    """Every Kustomization and HelmRelease of Flux."""
    for path in sops.differences(tree.root):
        name = str(path.relative_to(tree.root))
        yield Finding(
            name, "Component", "text", "differs from the encrypted files beside it: run `make secrets FLUX=1`"
        )
    for each in tree.objects("Kustomization"):
        path = each.spec.get("path", "./").removeprefix("./")
        if not (tree.root / path / KUSTOMIZATION).exists():
            yield each.finding("spec.path", f"there is no {KUSTOMIZATION} in {path}")
        yield from must(each, "spec", each.spec, WANTED)
        yield from _patience(tree, each)
        yield from _needs(tree, each)
        yield from _health(tree, each)
    for kind in ("Kustomization", "HelmRelease"):
        for each in tree.objects(kind):
            yield from _sources(tree, each)
            yield from _order(tree, each)
        yield from _circle(tree, kind)


def _sources(tree: Tree, each: Object) -> Iterator[Finding]:
    for path, value in walk(each.spec, "spec"):
        if path.endswith(SOURCES) and isinstance(value, dict):
            place = (value.get("namespace", each.namespace), value["name"])
            if place not in _places(tree, value["kind"], each.target):
                yield each.finding(path, f"there is no {value['kind']} {'/'.join(place)}")


def _order(tree: Tree, each: Object) -> Iterator[Finding]:
    for number, place in enumerate(_before(each)):
        if place not in _places(tree, each.kind, each.target):
            yield each.finding(f"spec.dependsOn.{number}", f"there is no {each.kind} {'/'.join(place)}")


def _circle(tree: Tree, kind: str) -> Iterator[Finding]:
    objects = {(each.namespace, each.name): each for each in tree.objects(kind)}
    try:
        TopologicalSorter({place: _before(each) for place, each in objects.items()}).prepare()
    except CycleError as exc:
        names = " -> ".join(name for _, name in exc.args[1])
        yield objects[exc.args[1][0]].finding("spec.dependsOn", f"each waits for the next, for ever: {names}")


def _before(each: Object) -> list[tuple[str, str]]:
    return [(one.get("namespace", each.namespace), one["name"]) for one in each.spec.get("dependsOn") or []]


def _places(tree: Tree, kind: str, target: str) -> set[tuple[str, str]]:
    return {(each.namespace, each.name) for each in tree.objects(kind, target=target)}


def _applied(tree: Tree, each: Object) -> list[Object]:
    """What a Kustomization of Flux applies; nothing if its folder was not rendered."""
    return list(tree.objects(target=each.spec.get("path", "./").removeprefix("./").rstrip("/")))


def _patience(tree: Tree, each: Object) -> Iterator[Finding]:
    """Waiting, it gives a release the time that the release gives itself."""
    releases = (one for one in _applied(tree, each) if one.kind == "HelmRelease")
    longest_s = max(((parse_duration(one.spec.get("timeout", "5m")) or 0) for one in releases), default=0)
    if (parse_duration(each.spec.get("timeout", each.spec.get("interval", 0))) or 0) <= longest_s:
        yield each.finding("spec.timeout", f"must be above the longest of its releases, {longest_s:g} s")


def _needs(tree: Tree, each: Object) -> Iterator[Finding]:
    """It waits for those that make the namespaces and the kinds of what it applies."""
    kustomizations = {(one.namespace, one.name): one for one in tree.objects("Kustomization", target=each.target)}
    before, found = [each], set()
    while before:
        one = before.pop()
        found.add((one.namespace, one.name))
        before += [kustomizations[place] for place in _before(one) if place in kustomizations.keys() - found]
    needed = {need for one in _applied(tree, each) for need in (("namespace", one.namespace), ("kinds of", one.group))}
    for place, other in kustomizations.items():
        for what, name in sorted(_made(_applied(tree, other)) & needed) if place not in found else ():
            yield each.finding("spec.dependsOn", f"must name {other.name}, which makes the {what} {name}")


def _made(objects: list[Object]) -> set[tuple[str, str]]:
    namespaces = {("namespace", one.name) for one in objects if one.kind == "Namespace"}
    return namespaces | {("kinds of", BROUGHT[one.name]) for one in objects if one.name in BROUGHT}


def _health(tree: Tree, each: Object) -> Iterator[Finding]:
    checks = each.spec.get("healthCheckExprs") or []
    for number, check_ in enumerate(checks):
        yield from _expressions(each, f"spec.healthCheckExprs.{number}", check_)
    scaled = any(one.kind == "ScaledObject" for one in _applied(tree, each))
    if scaled and not any(check_.get("kind") == "ScaledObject" for check_ in checks):
        yield each.finding("spec.healthCheckExprs", "must say when a ScaledObject is Ready: Flux does not know")


def _expressions(each: Object, where: str, check_: dict[str, Any]) -> Iterator[Finding]:
    for name in ("current", "inProgress", "failed"):
        if name in check_:
            problem = compile_(check_[name])
            if problem:
                yield each.finding(f"{where}.{name}", problem)


@cache
def environment() -> cel.Env:
    """What Flux's expressions are compiled in, but for the functions that Kubernetes adds to CEL."""
    return cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN))


def compile_(expression: str) -> str | None:
    """What is wrong with a CEL expression that must be true or false; None if nothing is."""
    try:
        kind = environment().compile(expression).return_type()
    except RuntimeError as exc:
        return f"is no CEL: {str(exc).partition('ERROR: ')[2].splitlines()[0]}"
    return None if kind in (cel.Type.BOOL, cel.Type.DYN) else f"must be true or false, and is a {kind.name()}"
