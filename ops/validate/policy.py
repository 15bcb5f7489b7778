"""Rules for single objects: what the house demands beyond what a schema can say."""

import re
from collections.abc import Iterator
from typing import Any

from ops.validate import pod_security
from ops.validate.pods import Pod, pods, runs_to_completion
from ops.validate.tree import Finding, Object, Tree, at, walk
from ops.validate.wanted import Wanted, must
from sluice_planner.quantity import parse_quantity

CREDENTIAL_IN_URL = re.compile(r"://[^/\s:@]*:[^@\s/]+@")
CREDENTIAL_NAME = re.compile(r"password|passwd|secret|token|api_?keys?|_key$|cookie", re.IGNORECASE)
# values that name a Secret or a key in it
REFERENCE_NAME = re.compile(r"existing|secretname|secretref|secretkeyref|provider|fromenv|_file$", re.IGNORECASE)
# where what stands there is used as it is: a chart's values, a ConfigMap, a trigger of KEDA
LITERALS = re.compile(r"(^|\.)(values|data|triggers\.\d+\.metadata)\.")
# settings of KEDA, Flux, charts and Prometheus, and options of curl and wget, that do not verify a certificate
UNVERIFIED = re.compile(r"unsafeSsl|insecure(Skip(TLS)?Verify)?|skipVerify|plainHTTP", re.IGNORECASE)
UNVERIFIED_OPTION = re.compile(r"(curl|wget)\b.*\s(-\w*k\w*|--insecure|--no-check-certificate)\b")
# maps that become annotations, labels or a ConfigMap: the API server refuses a number in them
TEXTS = re.compile(r"(annotations|labels|selector|entries)$", re.IGNORECASE)
POD: Wanted = {
    "automountServiceAccountToken": ([False], "none of ours asks the Kubernetes API"),
    "enableServiceLinks": ([False], "each Service of the namespace would add variables to the settings"),
}
NAMESPACE: Wanted = {
    "pod-security.kubernetes.io/enforce": (["restricted"], "the cluster refuses what these rules overlook"),
}
ANNOTATIONS: Wanted = {
    "kustomize.toolkit.fluxcd.io/prune": (["disabled"], "Flux would delete its volumes and Secrets with it"),
}
# what a container must have, and what it may have; a misspelt name would be a resource that no node has
RESOURCES = (
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.memory",
    "limits.ephemeral-storage",
)
RESOURCE = re.compile(r"cpu|memory|ephemeral-storage|hugepages-.+|[\w.-]+/[\w.-]+")
# what kubelet keeps of a container's log before it rotates: containerLogMaxSize times containerLogMaxFiles
LOG = "50Mi"
HELM_RELEASE: Wanted = {
    "driftDetection.mode": (["enabled"], "what is changed by hand is set back"),
    "install.strategy.name": (["RetryOnFailure"], "a registry that is away for a minute must not be the end"),
    "upgrade.strategy.name": (["RetryOnFailure"], "a registry that is away for a minute must not be the end"),
    "suspend": ([None, False], "nothing of it would follow git any more"),
}
ENCRYPTED = re.compile(r"ENC\[AES256_GCM,data:.+\]")


def check(tree: Tree) -> Iterator[Finding]:
    """Every rule on every object."""
    for each in tree.objects():
        if each.kind == "Secret":
            yield from _encrypted(each)
        else:
            yield from _credentials(each)
        yield from _unverified(each)
        if each.spec.get("replicas") == 0:
            yield each.finding("spec.replicas", "nothing would run")
        for pod in pods(each):
            yield from pod_security.check(pod)
            yield from _pod(pod)
        if each.kind == "HelmRelease":
            yield from _helm_release(each)
        if each.kind == "Namespace":
            metadata = each.body["metadata"]
            yield from must(each, "metadata.labels", metadata.get("labels") or {}, NAMESPACE)
            yield from must(each, "metadata.annotations", metadata.get("annotations") or {}, ANNOTATIONS)


def _encrypted(each: Object) -> Iterator[Finding]:
    sops = each.body.get("sops") or {}
    if not ENCRYPTED.fullmatch(str(sops.get("mac"))):
        yield each.finding("sops.mac", "is missing: a Secret in git is encrypted by SOPS (`make secrets FLUX=1`)")
    for group in ("data", "stringData"):
        for key, value in (each.body.get(group) or {}).items():
            if not ENCRYPTED.fullmatch(str(value)):
                yield each.finding(f"{group}.{key}", "is in plain text: encrypt it by SOPS (`make secrets FLUX=1`)")


def _credentials(each: Object) -> Iterator[Finding]:
    for path, value in walk(each.body):
        if isinstance(value, str) and CREDENTIAL_IN_URL.search(value):
            yield each.finding(path, "a URL must not carry a password")
        if isinstance(value, str) and value and LITERALS.search(path) and _is_credential(path.rpartition(".")[2]):
            yield each.finding(path, "a credential must not be in plain text; name a Secret")
        if isinstance(value, dict) and isinstance(value.get("value"), str) and _is_credential(str(value.get("name"))):
            yield each.finding(f"{path}.{value['name']}", "a credential must come from a Secret (secretKeyRef)")


def _unverified(each: Object) -> Iterator[Finding]:
    for path, value in walk(each.body):
        if UNVERIFIED.fullmatch(path.rpartition(".")[2]) and str(value).lower() == "true":
            yield each.finding(path, "a server would be sent credentials, or believed, without its certificate")
        if isinstance(value, list) and UNVERIFIED_OPTION.search(" ".join(map(str, value))):
            yield each.finding(path, "the certificate of the server would not be verified")


def _is_credential(name: str) -> bool:
    return bool(CREDENTIAL_NAME.search(name)) and not REFERENCE_NAME.search(name)


def _pod(pod: Pod) -> Iterator[Finding]:
    each = pod.owner
    yield from must(each, pod.path, pod.spec, POD)
    for number, volume in enumerate(pod.spec.get("volumes") or []):
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            field = f"{pod.path}.volumes.{number}.emptyDir.sizeLimit"
            yield each.finding(field, "is missing: it could fill the node's disk")
    yield from _ephemeral_storage(pod)
    for where, container in pod.containers():
        yield from _image(each, f"{where}.image", container.get("image", ""))
        yield from resources(each, f"{where}.resources", container.get("resources") or {})
        stays = ".containers[" in where and not runs_to_completion(pod)
        for probe in ("livenessProbe", "readinessProbe") if stays else ():
            if probe not in container:
                yield each.finding(f"{where}.{probe}", "is missing")


def resources(each: Object, where: str, there: dict[str, Any]) -> Iterator[Finding]:
    """The requests and limits of a container, or those that a chart's values give to one."""
    for field in RESOURCES:
        if at(there, field) is None:
            yield each.finding(f"{where}.{field}", "is missing")
    for group in ("requests", "limits"):
        for name in there.get(group) or {}:
            if not RESOURCE.fullmatch(name):
                yield each.finding(f"{where}.{group}.{name}", "is no resource of a container")


def _ephemeral_storage(pod: Pod) -> Iterator[Finding]:
    """The limits are above the emptyDirs and a log: else a pod is evicted before either of them is full."""
    volumes = [volume["emptyDir"] or {} for volume in pod.spec.get("volumes") or [] if "emptyDir" in volume]
    # one in memory counts as the container's memory
    on_disk = [volume for volume in volumes if volume.get("medium") != "Memory" and "sizeLimit" in volume]
    needed = [LOG, *(volume["sizeLimit"] for volume in on_disk)]
    field = "resources.limits.ephemeral-storage"
    limits = [at(container, field) for _, container in pod.containers()]
    sizes = [parse_quantity(limit) for limit in limits if limit is not None]
    if sizes and sum(size or 0 for size in sizes) <= sum(parse_quantity(size) or 0 for size in needed):
        yield pod.owner.finding(f"{pod.path}.{field}", f"must be above its emptyDirs and its log: {' + '.join(needed)}")


def _image(each: Object, where: str, image: str) -> Iterator[Finding]:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not name:
        yield each.finding(where, "is missing")
    if tag == "latest":
        yield each.finding(where, f"{image}: `latest` names no version")
    if each.target == "kustomize/base" and (tag or digest):
        yield each.finding(where, f"{image}: in the base images are bare names, overlays set the tag")
    if not each.target.startswith(("kustomize/base", "kustomize/components")) and not (tag or digest):
        yield each.finding(where, f"{image} has no tag: {each.target} must set one under `images:`")


def _helm_release(each: Object) -> Iterator[Finding]:
    yield from must(each, "spec", each.spec, HELM_RELEASE)
    for path, value in walk(each.spec.get("values", {}), "spec.values"):
        if path.endswith("app.kubernetes.io/instance") and value != each.name:
            yield each.finding(path, f"selects none of the release's pods: their label is {each.name}")
        if path.endswith(".tag") and value == "latest":
            yield each.finding(path, "`latest` names no version")
        for key, inner in value.items() if isinstance(value, dict) and TEXTS.search(path) else ():
            if isinstance(inner, int | float):
                yield each.finding(f"{path}.{key}", f"{inner} needs quotes: the API server takes only text there")
