"""Rules for what one object says of another: selectors, Services, ports, namespaces."""

from collections.abc import Iterator
from typing import Any

from ops.validate.pods import Pod, pods
from ops.validate.tree import Finding, Object, Tree, walk

CLUSTER_SCOPED = {"Namespace", "PriorityClass"}
# what a chart makes is not rendered here: the pods in these namespaces are known by their chart's labels alone
CHART_NAMESPACES = {"data", "keda", "nginx", "kube-system", "monitoring", "flux-system"}


def check(tree: Tree) -> Iterator[Finding]:
    """Every reference of every object, inside the folder that was rendered."""
    for target, objects in tree.rendered.items():
        for each in objects:
            yield from _namespace(tree, each)
            if target.startswith("kustomize") or target.endswith("apps"):
                yield from _selectors(each, objects)
                yield from _scaled(each, objects)
                yield from _ingress(each, objects)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    exact = (labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return all(exact) and all(_meets(each, labels) for each in selector.get("matchExpressions") or [])


def counts(constraint: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a spread constraint or an anti-affinity counts pods with these labels. Without a selector: none."""
    return constraint.get("labelSelector") is not None and matches(constraint["labelSelector"], labels)


def selects(budget: Object, pod: Pod) -> bool:
    """Whether a PodDisruptionBudget is a pod's; without a selector it is none's."""
    return "selector" in budget.spec and matches(budget.spec["selector"] or {}, pod.labels)


def _meets(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]


def _namespace(tree: Tree, each: Object) -> Iterator[Finding]:
    if each.kind in CLUSTER_SCOPED:
        return
    known = {namespace.name for namespace in tree.objects("Namespace")} | CHART_NAMESPACES
    own = {namespace.name for namespace in tree.objects("Namespace", target=each.target)}
    if each.namespace not in known:
        yield each.finding("metadata.namespace", f"{each.namespace or 'none'} is not a namespace that is made here")
    elif any(tree.objects("Deployment", target=each.target)) and each.namespace not in own:
        message = (
            f"{each.namespace} is the platform's: `make undeploy` would delete this there; put it into helm-releases"
        )
        yield each.finding("metadata.namespace", message)


def pods_of(objects: list[Object], namespace: str) -> list[Pod]:
    """The pods that these objects run in a namespace."""
    return [pod for each in objects if each.namespace == namespace for pod in pods(each)]


def _selectors(each: Object, objects: list[Object]) -> Iterator[Finding]:
    there = pods_of(objects, each.namespace)
    for pod in pods(each):
        if "selector" in each.spec and not matches(each.spec["selector"], pod.labels):
            yield each.finding("spec.selector", "does not match its own pods")
        for constraint in pod.spec.get("topologySpreadConstraints") or []:
            if not counts(constraint, pod.labels):
                yield each.finding(f"{pod.path}.topologySpreadConstraints", "does not match its own pods")
        account = pod.spec.get("serviceAccountName", "default")
        if account != "default" and not any(_is(other, "ServiceAccount", each.namespace, account) for other in objects):
            yield each.finding(f"{pod.path}.serviceAccountName", f"there is no ServiceAccount {account}")
        urgency = pod.spec.get("priorityClassName", "system-node-critical")
        if not urgency.startswith("system-") and not any(_is(other, "PriorityClass", "", urgency) for other in objects):
            yield each.finding(f"{pod.path}.priorityClassName", f"there is no PriorityClass {urgency}")
    if each.kind == "PodDisruptionBudget" and not any(selects(each, pod) for pod in there):
        yield each.finding("spec.selector", f"no pod in {each.namespace} has these labels")
    ours = each.kind == "NetworkPolicy" and each.namespace not in CHART_NAMESPACES
    if ours and not any(matches(each.spec.get("podSelector") or {}, pod.labels) for pod in there):
        yield each.finding("spec.podSelector", f"no pod in {each.namespace} has these labels")
    if each.kind == "Service" and each.spec.get("selector"):
        yield from _service(each, there)


def _is(each: Object, kind: str, namespace: str, name: str) -> bool:
    return (each.kind, each.namespace, each.name) == (kind, namespace, name)


def _service(each: Object, there: list[Pod]) -> Iterator[Finding]:
    chosen = [pod for pod in there if matches({"matchLabels": each.spec["selector"]}, pod.labels)]
    if not chosen:
        yield each.finding("spec.selector", f"no pod in {each.namespace} has these labels")
        return
    owners = {pod.owner.title for pod in chosen}
    if len(owners) > 1:
        yield each.finding("spec.selector", f"chooses the pods of {', '.join(sorted(owners))}: one of them must do")
    ports = {
        name
        for _, container in chosen[0].containers()
        for port in container.get("ports", [])
        for name in (port.get("name"), port["containerPort"])
    }
    for port in each.spec.get("ports") or []:
        if port.get("targetPort", port["port"]) not in ports:
            yield each.finding(
                "spec.ports.targetPort", f"{port.get('targetPort')} is no port of {chosen[0].owner.title}"
            )


def _scaled(each: Object, objects: list[Object]) -> Iterator[Finding]:
    if each.kind != "ScaledObject":
        return
    name = each.spec["scaleTargetRef"]["name"]
    scaled = next((pod.owner for pod in pods_of(objects, each.namespace) if pod.owner.name == name), None)
    if scaled is None:
        yield each.finding("spec.scaleTargetRef.name", f"there is no {name} in {each.namespace}")
    elif each.spec["scaleTargetRef"].get("kind", "Deployment") != scaled.kind:
        yield each.finding("spec.scaleTargetRef.kind", f"{name} is a {scaled.kind}")
    elif "replicas" in scaled.spec:
        yield scaled.finding("spec.replicas", f"{each.title} owns the number of replicas: leave it out")
    authentications = {other.name for other in objects if other.kind == "TriggerAuthentication"}
    for number, trigger in enumerate(each.spec["triggers"]):
        if "authenticationRef" in trigger and trigger["authenticationRef"]["name"] not in authentications:
            field = f"spec.triggers.{number}.authenticationRef.name"
            yield each.finding(field, "there is no such TriggerAuthentication")


def _ingress(each: Object, objects: list[Object]) -> Iterator[Finding]:
    if each.kind != "Ingress":
        return
    services = {other.name: other for other in objects if other.kind == "Service" and other.namespace == each.namespace}
    for field, value in walk(each.spec, "spec"):
        backend = value.get("service") if isinstance(value, dict) else None
        if isinstance(backend, dict) and not _ports(services.get(backend["name"])) & set(
            (backend.get("port") or {}).values()
        ):
            yield each.finding(f"{field}.service", f"there is no Service {backend['name']} with such a port")


def _ports(service: Object | None) -> set[str | int]:
    return (
        {port[key] for port in service.spec.get("ports") or [] for key in ("name", "port") if key in port}
        if service
        else set()
    )
