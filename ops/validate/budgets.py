"""Rules for PodDisruptionBudgets: each workload with several pods has one, and it allows draining a node."""

from collections.abc import Iterator
from math import ceil

from ops.validate.pods import pods
from ops.validate.references import selects
from ops.validate.tree import Finding, Object, Tree


def check(tree: Tree) -> Iterator[Finding]:
    """Check each Deployment and StatefulSet against the PodDisruptionBudgets of the same target."""
    for kind in ("Deployment", "StatefulSet"):
        for each in tree.objects(kind):
            budgets = [
                budget
                for budget in tree.objects("PodDisruptionBudget", target=each.target)
                if budget.namespace == each.namespace and any(selects(budget, pod) for pod in pods(each))
            ]
            yield from _workload(each, _minimum_replicas(tree, each), budgets)


def _workload(each: Object, replicas: int, budgets: list[Object]) -> Iterator[Finding]:
    if replicas > 1 and not budgets:
        message = f"a drain may evict all {replicas} replicas at once: add a PodDisruptionBudget"
        yield each.finding("spec.replicas", message)
    for budget in budgets:
        if len(budgets) > 1:
            yield budget.finding("spec.selector", f"{each.title} has more than one: Kubernetes evicts none of its pods")
        rule = "maxUnavailable" if "maxUnavailable" in budget.spec else "minAvailable"
        value = budget.spec.get(rule, 1)
        # Kubernetes rounds a percentage up
        number = ceil(int(value.rstrip("%")) * replicas / 100) if isinstance(value, str) else value
        if (replicas - number if rule == "minAvailable" else number) <= 0:
            message = f"{value} of {replicas} allows no eviction of {each.title}: a node could not be drained"
            yield budget.finding(f"spec.{rule}", message)


def _minimum_replicas(tree: Tree, each: Object) -> int:
    """The smallest number of replicas that the workload can have while it is not scaled to 0."""
    for scaler in tree.objects("ScaledObject", target=each.target):
        if (scaler.namespace, scaler.spec["scaleTargetRef"]["name"]) == (each.namespace, each.name):
            return max(1, int(scaler.spec.get("minReplicaCount", 0)))
    return int(each.spec.get("replicas", 1))
