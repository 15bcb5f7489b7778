"""Rules for what Flux reads: paths, sources, the order of its Kustomizations, health checks, the sums of Secrets."""

from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cel_expr_python import cel

from deploy import sops
from deploy.validate.tree import Finding, Object, Tree, walk

SOURCES = ("sourceRef", "chartRef")
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
        if not (tree.root / path / "kustomization.yaml").exists():
            yield each.finding("spec.path", f"there is no kustomization.yaml in {path}")
        for number, check_ in enumerate(each.spec.get("healthCheckExprs") or []):
            yield from _expressions(each, f"spec.healthCheckExprs.{number}", check_)
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
