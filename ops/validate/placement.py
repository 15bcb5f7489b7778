"""Rules for scheduling: priority classes, and the spread of replicas over machines."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ops.validate.pods import pods
from ops.validate.tree import Finding, Object, Tree, at

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
HOST = "kubernetes.io/hostname"
# from the highest priority to the lowest
CLASSES = ("sluice-data", "sluice-platform", "sluice-api", "sluice-workers")
# Deployment -> its priority class. A Deployment that a ScaledObject scales has the class of workers.
CLASS_OF = {"api": "sluice-api", "dead-letter-recorder": "sluice-api"}


def check(tree: Tree) -> Iterator[Finding]:
    """Check each Deployment, and the order of the priority classes."""
    for target in tree.rendered:
        scaled = {
            (each.namespace, each.spec["scaleTargetRef"]["name"])
            for each in tree.objects("ScaledObject", target=target)
        }
        for each in tree.objects("Deployment", target=target):
            is_scaled = (each.namespace, each.name) in scaled
            yield from workload(each, scaled=is_scaled)
            expected = "sluice-workers" if is_scaled else CLASS_OF.get(each.name)
            for pod in pods(each):
                found = pod.spec.get("priorityClassName")
                if expected and found not in {None, expected}:
                    message = f"must be {expected}, not {found}: the API has priority over workers"
                    yield each.finding(f"{pod.path}.priorityClassName", message)
    yield from _order(tree)


def workload(each: Object, *, scaled: bool = False) -> Iterator[Finding]:
    """Check a workload, also one that a chart creates: it needs a priority class, and with several pods a spread."""
    if each.kind not in WORKLOADS:
        return
    replicas = each.spec.get("replicas", 1)
    for pod in pods(each):
        if not pod.spec.get("priorityClassName"):
            yield each.finding(f"{pod.path}.priorityClassName", "is missing: use a class of this project")
        if (scaled or replicas > 1) and not is_spread(pod.spec):
            message = "is missing: all replicas may run on one machine and fail together"
            yield each.finding(f"{pod.path}.topologySpreadConstraints", message)


def is_spread(spec: dict[str, Any]) -> bool:
    """Whether the spec of a pod, or the values of a chart, spreads the pods over machines."""
    constraints = spec.get("topologySpreadConstraints") or []
    anti = at(spec, "affinity.podAntiAffinity") or {}
    terms = [term.get("podAffinityTerm", term) for group in anti.values() for term in group]
    return any(each.get("topologyKey") == HOST for each in [*constraints, *terms])


def _order(tree: Tree) -> Iterator[Finding]:
    classes = {each.name: each for each in tree.objects("PriorityClass")}
    for each in classes.values():
        if each.body.get("globalDefault"):
            yield each.finding("globalDefault", "every pod in the cluster without a class would get this class")
    ordered = [classes[name] for name in CLASSES if name in classes]
    for higher, lower in pairwise(ordered):
        if higher.body["value"] <= lower.body["value"]:
            yield higher.finding("value", f"must be above {lower.body['value']}, the value of {lower.name}")
