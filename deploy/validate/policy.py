"""Rules for single objects: what the house demands beyond what a schema can say."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from deploy.validate.tree import Finding, Object, Tree

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
CREDENTIAL_IN_URL = re.compile(r"://[^/\s:@]*:[^@\s/]+@")
CREDENTIAL_NAME = re.compile(r"password|passwd|secret|token|api_?keys?|_key$|cookie", re.IGNORECASE)
# values that name a Secret or a key in it
REFERENCE_NAME = re.compile(r"existing|secretname|secretref|secretkeyref|provider", re.IGNORECASE)
UNITS = {unit: Decimal(1024) ** power for power, unit in enumerate(("", "Ki", "Mi", "Gi"))} | {"m": Decimal("0.001")}


def check(tree: Tree) -> Iterator[Finding]:
    """Every rule on every object."""
    for each in tree.objects():
        yield from _credentials(each, each.body, "")
        if each.kind in WORKLOADS:
            yield from _pod(each)
            yield from _image_tags(each)
        if each.kind == "HelmRelease":
            yield from _helm_release(each)
        if each.kind == "Secret" and "sops" not in each.body:
            yield each.finding("data", "a Secret in git must be encrypted by SOPS (`make secrets FLUX=1`)")
        if each.kind == "Namespace":
            yield from _restricted_namespace(each)


def pod_spec(each: Object) -> dict[str, Any]:
    """A workload's pod."""
    return dict(each.spec["template"]["spec"])


def quantity(text: str | float) -> Decimal:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if match is None or match[2] not in UNITS:
        raise ValueError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * UNITS[match[2]]


def _credentials(each: Object, value: object, field: str) -> Iterator[Finding]:
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        if CREDENTIAL_NAME.search(name) and isinstance(value.get("value"), str):
            yield each.finding(f"{field}.{name}", "a credential must come from a Secret (secretKeyRef)")
        for key, inner in value.items():
            yield from _credential(each, key, inner, f"{field}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _credentials(each, inner, f"{field}.{number}")
    elif isinstance(value, str) and CREDENTIAL_IN_URL.search(value):
        yield each.finding(field, "a URL must not carry a password")


def _credential(each: Object, key: str, value: object, field: str) -> Iterator[Finding]:
    literal = isinstance(value, str) and value and ".values." in f".{field}"
    if literal and CREDENTIAL_NAME.search(key) and not REFERENCE_NAME.search(key):
        yield each.finding(field, "a credential must not be in values; name a Secret")
    yield from _credentials(each, value, field)


def _pod(each: Object) -> Iterator[Finding]:
    pod = pod_spec(each)
    where = "spec.template.spec"
    wanted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    yield from _must(each, f"{where}.securityContext", pod.get("securityContext", {}), wanted)
    if not pod.get("securityContext", {}).get("runAsUser", 0) > 0:
        yield each.finding(f"{where}.securityContext.runAsUser", "must be a number above 0: the image's user")
    yield from _must(each, where, pod, {"automountServiceAccountToken": False, "enableServiceLinks": False})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield each.finding(f"{where}.{field}", "the host's namespaces are not for pods (Pod Security: restricted)")
    for container in pod.get("initContainers", []) + pod["containers"]:
        yield from _container(each, f"{where}.containers[{container['name']}]", container)


def _must(each: Object, where: str, there: dict[str, Any], wanted: dict[str, Any]) -> Iterator[Finding]:
    for field, value in wanted.items():
        if there.get(field) != value:
            yield each.finding(f"{where}.{field}", f"must be {value}, not {there.get(field)}")


def _container(each: Object, where: str, container: dict[str, Any]) -> Iterator[Finding]:
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    yield from _must(each, f"{where}.securityContext", container.get("securityContext", {}), wanted)
    for probe in ("livenessProbe", "readinessProbe"):
        if probe not in container:
            yield each.finding(f"{where}.{probe}", "is missing")
    for port in container.get("ports", []):
        if "hostPort" in port:
            yield each.finding(f"{where}.ports.hostPort", "is not allowed (Pod Security: restricted)")
    yield from _resources(each, f"{where}.resources", container.get("resources", {}))


def _resources(each: Object, where: str, resources: dict[str, Any]) -> Iterator[Finding]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for field, group in (("requests.cpu", requests), ("requests.memory", requests), ("limits.memory", limits)):
        if field.split(".")[1] not in group:
            yield each.finding(f"{where}.{field}", "is missing")
    yield from limits_below_requests(each, where, resources)


def limits_below_requests(each: Object, where: str, resources: dict[str, Any]) -> Iterator[Finding]:
    """A limit below its request: the API server would refuse the pod."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in sorted(requests.keys() & limits.keys()):
        if limits[name] is not None and quantity(limits[name]) < quantity(requests[name]):
            yield each.finding(f"{where}.limits.{name}", f"{limits[name]} is below the request of {requests[name]}")


def _image_tags(each: Object) -> Iterator[Finding]:
    for container in pod_spec(each)["containers"]:
        where = f"spec.template.spec.containers[{container['name']}].image"
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag == "latest":
            yield each.finding(where, f"{image}: `latest` names no version")
        if "overlays" in each.target and not tag:
            yield each.finding(where, f"{image} has no tag: {each.target} must set one under `images:`")
        if each.target == "kustomize/base" and tag:
            yield each.finding(where, f"{image}: in the base images are bare names, overlays set the tag")


def _restricted_namespace(each: Object) -> Iterator[Finding]:
    level = each.body["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
    if level != "restricted":
        yield each.finding("metadata.labels.pod-security.kubernetes.io/enforce", f"must be restricted, not {level}")


def _helm_release(each: Object) -> Iterator[Finding]:
    spec = each.spec
    if spec.get("driftDetection", {}).get("mode") != "enabled":
        yield each.finding("spec.driftDetection.mode", "must be enabled: what is changed by hand is set back")
    for verb in ("install", "upgrade"):
        if spec.get(verb, {}).get("strategy", {}).get("name") != "RetryOnFailure":
            yield each.finding(f"spec.{verb}.strategy.name", "must be RetryOnFailure")
    yield from _nested_resources(each, spec.get("values", {}), "spec.values")


def _nested_resources(each: Object, values: dict[str, Any], where: str) -> Iterator[Finding]:
    for key, value in values.items():
        if isinstance(value, dict):
            if {"requests", "limits"} & value.keys():
                yield from limits_below_requests(each, f"{where}.{key}", value)
            yield from _nested_resources(each, value, f"{where}.{key}")
