"""Rules for PodDisruptionBudgets: what runs more than once has one, and none keeps a node from being drained."""

from collections.abc import Iterator
from math import ceil

from ops.validate.pods import pods
from ops.validate.references import selects
from ops.validate.tree import Finding, Object, Tree

WORKLOADS = ("Deployment", "StatefulSet")


def check(tree: Tree) -> Iterator[Finding]:
    """Every target's workloads and budgets."""
    for target in tree.rendered:
        budgets = list(tree.objects("PodDisruptionBudget", target=target))
        for kind in WORKLOADS:
            for each in tree.objects(kind, target=target):
                yield from _workload(each, _fewest(tree, each), [one for one in budgets if _selects(one, each)])


def _workload(each: Object, replicas: int, budgets: list[Object]) -> Iterator[Finding]:
    if replicas > 1 and not budgets:
        yield each.finding("spec.replicas", f"a drain may take all {replicas} at once: give it a PodDisruptionBudget")
    for budget in budgets:
        if len(budgets) > 1:
            yield budget.finding("spec.selector", f"{each.title} has more than one: Kubernetes evicts none of its pods")
        if _stays(budget, replicas) >= replicas:
            rule = "maxUnavailable" if "maxUnavailable" in budget.spec else "minAvailable"
            message = f"{budget.spec[rule]} of {replicas} lets no pod of {each.title} go: a node could not be drained"
            yield budget.finding(f"spec.{rule}", message)


def _fewest(tree: Tree, each: Object) -> int:
    """How many replicas there are at least, while there is anything to drain."""
    for scaler in tree.objects("ScaledObject", target=each.target):
        if (scaler.namespace, scaler.spec["scaleTargetRef"]["name"]) == (each.namespace, each.name):
            return max(1, int(scaler.spec.get("minReplicaCount", 0)))
    return int(each.spec.get("replicas", 1))


def _selects(budget: Object, each: Object) -> bool:
    same = budget.namespace == each.namespace
    return same and any(selects(budget, pod) for pod in pods(each))


def _stays(budget: Object, replicas: int) -> int:
    """How many must be there; Kubernetes rounds a percentage up, of either kind."""
    if "maxUnavailable" in budget.spec:
        return replicas - _number(budget.spec["maxUnavailable"], replicas)
    return _number(budget.spec.get("minAvailable", 1), replicas)


def _number(value: int | str, replicas: int) -> int:
    return ceil(int(value.rstrip("%")) * replicas / 100) if isinstance(value, str) else value
