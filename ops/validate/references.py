"""Rules for references between objects: selectors, Services, ports, namespaces.

The API server and `sluice lint` (scaling.py) check references to other namespaces and kinds.
"""

from collections.abc import Iterator
from typing import Any

from ops.validate.pods import Pod, pods
from ops.validate.tree import Finding, Object, Tree, walk

CLUSTER_SCOPED = {"Namespace", "PriorityClass"}


def check(tree: Tree) -> Iterator[Finding]:
    """Check the references inside each rendered folder. Pods that charts create are not checked."""
    for target, objects in tree.rendered.items():
        own = {each.name for each in objects if each.kind == "Namespace"}
        for each in objects:
            if own and each.kind not in CLUSTER_SCOPED and each.namespace not in own:
                message = (
                    f"this folder does not create the namespace {each.namespace or 'none'}: move an object of the "
                    "platform, which `make undeploy` keeps, to helm-releases"
                )
                yield each.finding("metadata.namespace", message)
        if any(tree.objects("Deployment", target=target)):
            yield from _in_folder(objects)


def _in_folder(objects: list[Object]) -> Iterator[Finding]:
    all_pods = [pod for each in objects for pod in pods(each)]
    for each in objects:
        neighbours = [pod for pod in all_pods if pod.owner.namespace == each.namespace]
        yield from _spread(each)
        yield from _selector(each, neighbours)
        yield from _ports(each, neighbours)
        yield from _backends(each, objects)
        yield from _scaled_kind(each, neighbours)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector matches these labels. An empty selector matches all."""
    exact = (labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return all(exact) and all(_matches_expression(each, labels) for each in selector.get("matchExpressions") or [])


def _matches_expression(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]


def counts(constraint: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a spread constraint counts pods with these labels. Without a selector it counts no pods."""
    return constraint.get("labelSelector") is not None and matches(constraint["labelSelector"], labels)


def selects(each: Object, pod: Pod) -> bool:
    """Whether a PodDisruptionBudget or a Service selects a pod. Without a selector it selects no pods."""
    selector = each.spec.get("selector")
    if selector is None:
        return False
    return matches({"matchLabels": selector} if each.kind == "Service" else selector, pod.labels)


def _spread(each: Object) -> Iterator[Finding]:
    for pod in pods(each):
        for constraint in pod.spec.get("topologySpreadConstraints") or []:
            if not counts(constraint, pod.labels):
                yield each.finding(f"{pod.path}.topologySpreadConstraints", "does not match its own pods")


def _selector(each: Object, neighbours: list[Pod]) -> Iterator[Finding]:
    """A PodDisruptionBudget and a Service select pods; a Service selects pods of only one workload."""
    if each.kind in {"PodDisruptionBudget", "Service"}:
        owners = sorted({pod.owner.title for pod in neighbours if selects(each, pod)})
        if not owners:
            yield each.finding("spec.selector", f"no pod in {each.namespace} has these labels")
        elif len(owners) > 1 and each.kind == "Service":
            yield each.finding(
                "spec.selector", f"selects the pods of {', '.join(owners)}: must select only one workload"
            )


def _ports(each: Object, neighbours: list[Pod]) -> Iterator[Finding]:
    """The target ports of a Service are ports of its pods."""
    selected = [pod for pod in neighbours if each.kind == "Service" and selects(each, pod)]
    ports = {
        value
        for pod in selected
        for _, container in pod.containers()
        for port in container.get("ports") or []
        for value in (port.get("name"), port["containerPort"])
    }
    for port in each.spec["ports"] if selected else []:
        target_port = port.get("targetPort", port["port"])
        if target_port not in ports:
            yield each.finding("spec.ports.targetPort", f"{target_port} is not a port of {selected[0].owner.title}")


def _backends(each: Object, objects: list[Object]) -> Iterator[Finding]:
    """The backends of an Ingress are existing ports of Services in the same namespace."""
    ports = {
        (service.name, port.get(key))
        for service in objects
        if service.kind == "Service" and service.namespace == each.namespace
        for port in service.spec.get("ports") or []
        for key in ("name", "port")
    }
    for field, value in walk(each.spec, "spec") if each.kind == "Ingress" else ():
        if field.endswith(".service"):
            name, port = value["name"], value.get("port") or {}
            if (name, port.get("name", port.get("number"))) not in ports:
                yield each.finding(field, f"there is no Service {name} with this port")


def _scaled_kind(each: Object, neighbours: list[Pod]) -> Iterator[Finding]:
    """A ScaledObject has the kind of its workload. `sluice lint` checks only the names of Deployments."""
    target = each.spec["scaleTargetRef"] if each.kind == "ScaledObject" else {}
    for owner in (pod.owner for pod in neighbours if pod.owner.name == target.get("name")):
        if target.get("kind", "Deployment") != owner.kind:
            yield each.finding("spec.scaleTargetRef.kind", f"{owner.name} is a {owner.kind}")
