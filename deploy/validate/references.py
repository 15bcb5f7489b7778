"""Rules for what one object says of another: selectors, Services, ports, Secrets, namespaces."""

from collections.abc import Iterator
from typing import Any

from deploy.validate.policy import WORKLOADS, pod_spec
from deploy.validate.tree import Finding, Object, Tree

CLUSTER_SCOPED = {"Namespace"}
# what a chart makes is not rendered here: the pods in these namespaces are known by their chart's labels alone
CHART_NAMESPACES = {"data", "keda", "nginx", "kube-system", "monitoring", "flux-system"}

SecretKeys = dict[tuple[str, str], set[str]]
"""(namespace, name) -> keys."""


def check(tree: Tree, secrets: SecretKeys) -> Iterator[Finding]:
    """Every reference of every object, inside the folder that was rendered."""
    for target, objects in tree.rendered.items():
        for each in objects:
            yield from _namespace(tree, each)
            yield from _secrets(each, secrets)
            if target.startswith("kustomize") or target.endswith("apps"):
                yield from _selectors(each, objects)
                yield from _scaled(each, objects)
                yield from _ingress(each, objects)


def labels(each: Object) -> dict[str, str]:
    """Of a workload's pods."""
    return dict(each.spec["template"]["metadata"]["labels"])


def matches(selector: dict[str, Any], labels_: dict[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    exact = all(labels_.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(
        expression["operator"] == "In" and labels_.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def _namespace(tree: Tree, each: Object) -> Iterator[Finding]:
    known = {namespace.name for namespace in tree.objects("Namespace")} | CHART_NAMESPACES
    if each.kind not in CLUSTER_SCOPED and each.namespace not in known:
        yield each.finding("metadata.namespace", f"{each.namespace or 'none'} is not a namespace that is made here")


def _workloads(objects: list[Object], namespace: str) -> list[Object]:
    return [each for each in objects if each.kind in WORKLOADS and each.namespace == namespace]


def _selectors(each: Object, objects: list[Object]) -> Iterator[Finding]:
    pods = _workloads(objects, each.namespace)
    if each.kind in WORKLOADS:
        if not matches(each.spec["selector"], labels(each)):
            yield each.finding("spec.selector", "does not match the labels of its own pods")
        for constraint in pod_spec(each).get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], labels(each)):
                yield each.finding("spec.template.spec.topologySpreadConstraints", "does not match its own pods")
    if each.kind == "PodDisruptionBudget" and not any(matches(each.spec["selector"], labels(pod)) for pod in pods):
        yield each.finding("spec.selector", f"no pod in {each.namespace} has these labels")
    ours = each.kind == "NetworkPolicy" and each.namespace not in CHART_NAMESPACES
    if ours and not any(matches(each.spec["podSelector"], labels(pod)) for pod in pods):
        yield each.finding("spec.podSelector", f"no pod in {each.namespace} has these labels")
    if each.kind == "Service":
        yield from _service(each, pods)


def _service(each: Object, pods: list[Object]) -> Iterator[Finding]:
    chosen = [pod for pod in pods if matches({"matchLabels": each.spec["selector"]}, labels(pod))]
    if not chosen:
        yield each.finding("spec.selector", f"no pod in {each.namespace} has these labels")
        return
    ports = {
        name
        for container in pod_spec(chosen[0])["containers"]
        for port in container.get("ports", [])
        for name in (port.get("name"), port["containerPort"])
    }
    for port in each.spec["ports"]:
        if port.get("targetPort", port["port"]) not in ports:
            yield each.finding("spec.ports.targetPort", f"{port.get('targetPort')} is no port of {chosen[0].title}")


def _scaled(each: Object, objects: list[Object]) -> Iterator[Finding]:
    if each.kind != "ScaledObject":
        return
    name = each.spec["scaleTargetRef"]["name"]
    scaled = next((pod for pod in _workloads(objects, each.namespace) if pod.name == name), None)
    if scaled is None:
        yield each.finding("spec.scaleTargetRef.name", f"there is no {name} in {each.namespace}")
    elif "replicas" in scaled.spec:
        yield scaled.finding("spec.replicas", f"{each.title} owns the number of replicas: leave it out")
    authentications = {other.name for other in objects if other.kind == "TriggerAuthentication"}
    for number, trigger in enumerate(each.spec["triggers"]):
        if trigger.get("authenticationRef", {}).get("name") not in authentications:
            yield each.finding(
                f"spec.triggers.{number}.authenticationRef.name", "there is no such TriggerAuthentication"
            )


def _ingress(each: Object, objects: list[Object]) -> Iterator[Finding]:
    if each.kind != "Ingress":
        return
    services = {other.name: other for other in objects if other.kind == "Service" and other.namespace == each.namespace}
    for rule in each.spec["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            service = services.get(backend["name"])
            ports = [value for port in service.spec["ports"] for value in port.values()] if service else []
            if not {backend["port"].get("name"), backend["port"].get("number")} & set(ports):
                yield each.finding(f"spec.rules.paths[{path['path']}].backend", "there is no such Service or port")


def _secrets(each: Object, secrets: SecretKeys) -> Iterator[Finding]:
    for field, name, keys in _references(each):
        made = secrets.get((each.namespace, name))
        if made is None:
            yield each.finding(field, f"`make secrets` makes no Secret {each.namespace}/{name}")
        elif keys - made:
            yield each.finding(field, f"the Secret {each.namespace}/{name} has no key {', '.join(sorted(keys - made))}")


def _references(each: Object) -> Iterator[tuple[str, str, set[str]]]:
    """(field, Secret, keys) of each reference to a Secret."""
    if each.kind in WORKLOADS:
        for container in pod_spec(each)["containers"]:
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    yield f"env.{variable['name']}.secretKeyRef", reference["name"], {reference["key"]}
    if each.kind == "TriggerAuthentication":
        for number, reference in enumerate(each.spec["secretTargetRef"]):
            yield f"spec.secretTargetRef.{number}", reference["name"], {reference["key"]}
    if each.kind == "HelmRelease":
        yield from _values_references(each.spec.get("values", {}), "spec.values")
    if each.kind == "Kustomization" and "decryption" in each.spec:
        yield "spec.decryption.secretRef", each.spec["decryption"]["secretRef"]["name"], {"age.agekey"}


def _values_references(values: dict[str, Any], where: str) -> Iterator[tuple[str, str, set[str]]]:
    if "existingSecret" in values:
        keys = {value for key, value in values.items() if key.startswith("existing") and key.endswith("Key")}
        yield f"{where}.existingSecret", values["existingSecret"], keys
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _values_references(value, f"{where}.{key}")
