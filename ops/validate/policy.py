"""Rules for single objects: credentials, images, resources, probes, and how Flux treats releases and namespaces."""

import re
from collections.abc import Iterator
from typing import Any

from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.pods import Pod, pods, runs_to_completion
from ops.validate.tree import Finding, Object, Tree, at, walk
from sluice_planner.quantity import parse_quantity

CREDENTIAL_IN_URL = re.compile(r"://[^/\s:@]*:[^@\s/]+@")
CREDENTIAL_NAME = re.compile(r"password|passwd|secret|token|api_?keys?|_key$|cookie", re.IGNORECASE)
# names of fields that refer to a Secret, to a key in it, or to a mounted file
REFERENCE_NAME = re.compile(r"existing|secretname|secretref|secretkeyref|provider|fromenv|_file$", re.IGNORECASE)
# paths of fields with literal values: the values of a chart, the data of a ConfigMap, a trigger of KEDA
LITERALS = re.compile(r"(^|\.)(values|data|triggers\.\d+\.metadata)\.")
# settings of KEDA, Flux, charts and Prometheus, and options of curl and wget, without certificate verification
UNVERIFIED = re.compile(r"unsafeSsl|insecure(Skip(TLS)?Verify)?|skipVerify|plainHTTP", re.IGNORECASE)
UNVERIFIED_OPTION = re.compile(r"(curl|wget)\b.*\s(-\w*k\w*|--insecure|--no-check-certificate)\b")
ENCRYPTED = re.compile(r"ENC\[AES256_GCM,data:.+\]")
POD: AllowedValues = {
    "automountServiceAccountToken": ([False], "none of our programs uses the Kubernetes API"),
    "enableServiceLinks": ([False], "each Service of the namespace would add variables to the settings"),
}
CONTAINER: AllowedValues = {
    "securityContext.readOnlyRootFilesystem": ([True], "a program writes only where a volume is mounted"),
}
# required resources of a container; a chart's values have the same fields
RESOURCES = (
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.memory",
    "limits.ephemeral-storage",
)
# how much of a container's log kubelet keeps: containerLogMaxSize times containerLogMaxFiles
LOG = "50Mi"
NAMESPACE: AllowedValues = {
    "labels.pod-security.kubernetes.io/enforce": (["restricted"], "the cluster must refuse every less restricted pod"),
    "annotations.kustomize.toolkit.fluxcd.io/prune": (
        ["disabled"],
        "Flux would delete the namespace with its volumes and Secrets",
    ),
}
HELM_RELEASE: AllowedValues = {
    "driftDetection.mode": (["enabled"], "Flux must revert manual changes"),
    "install.strategy.name": (["RetryOnFailure"], "an install must survive a short outage of the registry"),
    "upgrade.strategy.name": (["RetryOnFailure"], "an upgrade must survive a short outage of the registry"),
    "suspend": ([None, False], "Flux would no longer apply changes from git"),
}


def check(tree: Tree) -> Iterator[Finding]:
    """Apply every rule to every object."""
    for each in tree.objects():
        yield from _encrypted(each) if each.kind == "Secret" else _credentials(each)
        yield from _unverified(each)
        if each.spec.get("replicas") == 0:
            yield each.finding("spec.replicas", "no pod would run")
        for pod in pods(each):
            yield from _pod(pod)
        if each.kind == "HelmRelease":
            yield from check_values(each, "spec", each.spec, HELM_RELEASE)
            for path, value in walk(each.spec.get("values", {}), "spec.values"):
                if path.endswith(".tag") and value == "latest":
                    yield each.finding(path, "`latest` names no version")
        if each.kind == "Namespace":
            yield from check_values(each, "metadata", each.body["metadata"], NAMESPACE)


def _encrypted(each: Object) -> Iterator[Finding]:
    if not ENCRYPTED.fullmatch(str(at(each.body, "sops.mac"))):
        yield each.finding("sops.mac", "is missing: encrypt Secrets in git with SOPS (`make secrets FLUX=1`)")
    for group in ("data", "stringData"):
        for key, value in (each.body.get(group) or {}).items():
            if not ENCRYPTED.fullmatch(str(value)):
                yield each.finding(f"{group}.{key}", "is in plain text: encrypt it with SOPS (`make secrets FLUX=1`)")


def _credentials(each: Object) -> Iterator[Finding]:
    for path, value in walk(each.body):
        if isinstance(value, str) and CREDENTIAL_IN_URL.search(value):
            yield each.finding(path, "a URL must not contain a password")
        if isinstance(value, str) and value and LITERALS.search(path) and _is_credential(path.rpartition(".")[2]):
            yield each.finding(path, "a credential must not be in plain text: refer to a Secret")
        if isinstance(value, dict) and isinstance(value.get("value"), str) and _is_credential(str(value.get("name"))):
            yield each.finding(f"{path}.{value['name']}", "a credential must come from a Secret (secretKeyRef)")


def _is_credential(name: str) -> bool:
    return bool(CREDENTIAL_NAME.search(name)) and not REFERENCE_NAME.search(name)


def _unverified(each: Object) -> Iterator[Finding]:
    for path, value in walk(each.body):
        if UNVERIFIED.fullmatch(path.rpartition(".")[2]) and str(value).lower() == "true":
            yield each.finding(path, "a server without a valid certificate would be trusted, and get credentials")
        if isinstance(value, list) and UNVERIFIED_OPTION.search(" ".join(map(str, value))):
            yield each.finding(path, "the certificate of the server would not be verified")


def _pod(pod: Pod) -> Iterator[Finding]:
    each = pod.owner
    yield from check_values(each, pod.path, pod.spec, POD)
    for number, volume in enumerate(pod.spec.get("volumes") or []):
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            field = f"{pod.path}.volumes.{number}.emptyDir.sizeLimit"
            yield each.finding(field, "is missing: the volume could fill the node's disk")
    yield from _ephemeral_storage(pod)
    for where, container in pod.containers():
        yield from check_values(each, where, container, CONTAINER)
        yield from _image(each, f"{where}.image", container.get("image", ""))
        yield from resources(each, f"{where}.resources", container.get("resources") or {})
        if ".containers[" in where and not runs_to_completion(pod):
            for probe in sorted({"livenessProbe", "readinessProbe"} - container.keys()):
                yield each.finding(f"{where}.{probe}", "is missing")


def resources(each: Object, where: str, values: dict[str, Any]) -> Iterator[Finding]:
    """Check that a container has all requests and limits. A CPU limit is not required."""
    for field in RESOURCES:
        if at(values, field) is None:
            yield each.finding(f"{where}.{field}", "is missing")


def _ephemeral_storage(pod: Pod) -> Iterator[Finding]:
    """The limit is above the emptyDirs plus the log: otherwise the pod is evicted before its volumes are full."""
    volumes = [volume["emptyDir"] or {} for volume in pod.spec.get("volumes") or [] if "emptyDir" in volume]
    # an emptyDir in memory counts towards the memory limit
    on_disk = [volume for volume in volumes if volume.get("medium") != "Memory" and "sizeLimit" in volume]
    needed = [LOG, *(volume["sizeLimit"] for volume in on_disk)]
    field = "resources.limits.ephemeral-storage"
    limits = [at(container, field) for _, container in pod.containers()]
    sizes = [parse_quantity(limit) for limit in limits if limit is not None]
    if sizes and sum(size or 0 for size in sizes) <= sum(parse_quantity(size) or 0 for size in needed):
        message = f"must be above the sum of its log and its emptyDirs: {' + '.join(needed)}"
        yield pod.owner.finding(f"{pod.path}.{field}", message)


def _image(each: Object, where: str, image: str) -> Iterator[Finding]:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if tag == "latest":
        yield each.finding(where, f"{image}: `latest` names no version")
    if each.target == "kustomize/base" and (tag or digest):
        yield each.finding(where, f"{image}: images of the base have no tag, because overlays set it")
    if not each.target.startswith(("kustomize/base", "kustomize/components")) and not (tag or digest):
        yield each.finding(where, f"{image} has no tag: set it in {each.target} under `images:`")
