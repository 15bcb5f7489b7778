"""Rules across files: what code, Dockerfiles, manifests and charts say of the same thing."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

from apps.contract import topology
from apps.contract.settings import ApiSettings, WorkerSettings
from apps.contract.tasks import TASKS
from deploy import definitions, images, secrets
from deploy.validate import network
from deploy.validate.policy import pod_spec, quantity
from deploy.validate.tree import Finding, Object, Tree

# to hand back what a soft shutdown left, and to close the connections
HAND_BACK_S = 10
API_PORT = 8000
INTERNAL_ROUTES = {"/metrics"}
# the first is what NGINX adds to the API's own limit, so that the API answers with its problem document
API_DOCKERFILE, WORKER_DOCKERFILE = images.IMAGES.values()


def check(tree: Tree) -> Iterator[Finding]:
    """Everything that must agree, in every target that has it."""
    for name, _ in definitions.differences(tree.root):
        yield Finding(name, "definitions", "text", "differs from apps/contract/topology.py: run `make definitions`")
    for each in tree.objects("ScaledObject"):
        yield from _queues(each)
        yield from _management(each)
    for each in tree.objects("HelmRelease"):
        yield from _service_name(each)
    for each in tree.objects("Deployment"):
        yield from _image_name(each)
        if each.name == "api":
            yield from _api(tree, each)
        if each.name == "celery-worker":
            yield from _worker(each)
    for each in tree.objects("Ingress"):
        yield from _ingress(tree, each)
    for each in tree.objects("Kustomization"):
        yield from _flux_path(tree, each)


def dockerfile_command(root: Path, dockerfile: str) -> list[str]:
    """The CMD in exec form; empty if it has none."""
    match = re.search(r"^CMD (\[.*?\])$", (root / dockerfile).read_text(), re.MULTILINE | re.DOTALL)
    return cast("list[str]", json.loads(match[1].replace("\\\n", ""))) if match else []


def option(command: list[str], name: str) -> str:
    """The value of a command's option; "0" if it is not there."""
    return command[command.index(name) + 1] if name in command else "0"


def seconds(text: str) -> Decimal:
    """`75s`, `1m` as seconds."""
    return Decimal(text.rstrip("sm")) * (60 if text.endswith("m") else 1)


def _queues(each: Object) -> Iterator[Finding]:
    there = [trigger["metadata"].get("queueName") for trigger in each.spec["triggers"]]
    if there != list(topology.WORK_QUEUES):
        wanted = ", ".join(topology.WORK_QUEUES)
        yield each.finding("spec.triggers.metadata.queueName", f"{there} are not the contract's work queues: {wanted}")
    for number, trigger in enumerate(each.spec["triggers"]):
        if trigger["metadata"].get("vhostName") != definitions.VHOST:
            yield each.finding(f"spec.triggers.{number}.metadata.vhostName", f"must be {definitions.VHOST}")
        if "queueLength" in trigger["metadata"]:
            yield each.finding(f"spec.triggers.{number}.metadata.queueLength", "is deprecated: use mode and value")
        if not trigger.get("useCachedMetrics"):
            field = f"spec.triggers.{number}.useCachedMetrics"
            yield each.finding(field, "without it pollingInterval does nothing: each sync of the HPA asks the broker")


def _management(each: Object) -> Iterator[Finding]:
    """KEDA asks the broker that the Secrets name, on a port that the NetworkPolicies let it reach."""
    ports = {port for source, _, port in network.FLOWS if source == network.KEDA}
    for number, trigger in enumerate(each.spec["triggers"]):
        url = urlsplit(str(trigger["metadata"].get("host")))
        if url.hostname != secrets.BROKER.partition(":")[0] or url.port not in ports:
            field = f"spec.triggers.{number}.metadata.host"
            yield each.finding(field, f"{url.netloc} is not the broker's management API that KEDA may reach")


def _service_name(each: Object) -> Iterator[Finding]:
    """The charts' Services have the names that the Secrets' URLs use."""
    hosts = {address.partition(":")[0] for address in (secrets.BROKER, secrets.REDIS)}
    name = each.spec.get("values", {}).get("fullnameOverride")
    if each.namespace == "data" and f"{name}.data.svc" not in hosts:
        yield each.finding("spec.values.fullnameOverride", f"{name}: the Secrets' URLs name {', '.join(sorted(hosts))}")


def _image_name(each: Object) -> Iterator[Finding]:
    for container in pod_spec(each)["containers"]:
        name = container["image"].rpartition("/")[2].partition(":")[0]
        if name not in images.IMAGES:
            yield each.finding(f"containers[{container['name']}].image", f"`make images` builds no {name}")


def _api(tree: Tree, each: Object) -> Iterator[Finding]:
    command = dockerfile_command(tree.root, API_DOCKERFILE)
    pod = pod_spec(each)
    container = pod["containers"][0]
    if option(command, "--port") != str(container["ports"][0]["containerPort"]):
        yield each.finding("containers[api].ports", f"the image listens on {option(command, '--port')}")
    needed = _pre_stop_s(container) + int(option(command, "--timeout-graceful-shutdown"))
    yield from _grace(each, pod, needed, "preStop and uvicorn's --timeout-graceful-shutdown")
    keep_alive_s = Decimal(option(command, "--timeout-keep-alive"))
    for release in tree.objects("HelmRelease"):
        entries = release.spec.get("values", {}).get("controller", {}).get("config", {}).get("entries", {})
        if "keepalive-timeout" in entries and seconds(entries["keepalive-timeout"]) >= keep_alive_s:
            field = "spec.values.controller.config.entries.keepalive-timeout"
            yield release.finding(
                field, f"must be below the {keep_alive_s} s of --timeout-keep-alive in {API_DOCKERFILE}"
            )


def _worker(each: Object) -> Iterator[Finding]:
    pod = pod_spec(each)
    container = pod["containers"][0]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    soft_s = float(environment.get("SOFT_SHUTDOWN_S") or WorkerSettings.model_fields["soft_shutdown_s"].default)
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    if soft_s <= limit_s:
        yield each.finding("env.SOFT_SHUTDOWN_S", f"{soft_s:g} s are not above the longest hard limit ({limit_s} s)")
    yield from _grace(each, pod, soft_s + HAND_BACK_S, "SOFT_SHUTDOWN_S and the time to hand tasks back")
    port = str(container["ports"][0]["containerPort"])
    if environment.get("METRICS_PORT") != port:
        yield each.finding("env.METRICS_PORT", f"must be the container's port {port}")
    for probe, file in (("livenessProbe", "LIVENESS_FILE"), ("readinessProbe", "READINESS_FILE")):
        if str(environment.get(file)) not in " ".join(container[probe]["exec"]["command"]):
            yield each.finding(f"containers[worker].{probe}", f"does not look at {file}, {environment.get(file)}")
    memory = quantity(container["resources"]["limits"]["memory"])
    if WorkerSettings.model_fields["worker_max_memory_mib"].default * 2**20 >= memory:
        yield each.finding(
            "resources.limits.memory", "is not above WORKER_MAX_MEMORY_MIB, at which a child is replaced"
        )


def _pre_stop_s(container: dict[str, Any]) -> int:
    return int(container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))


def _grace(each: Object, pod: dict[str, Any], needed_s: float, what: str) -> Iterator[Finding]:
    grace_s = pod.get("terminationGracePeriodSeconds", 30)
    if grace_s <= needed_s:
        field = "spec.template.spec.terminationGracePeriodSeconds"
        yield each.finding(field, f"{grace_s} is not above the {needed_s:g} s of {what}")


def _ingress(tree: Tree, each: Object) -> Iterator[Finding]:
    annotations = each.body["metadata"].get("annotations", {})
    longest_s = next(bound.le for bound in ApiSettings.model_fields["wait_max_s"].metadata if hasattr(bound, "le"))
    if seconds(annotations.get("nginx.org/proxy-read-timeout", "0s")) <= longest_s:
        field = "metadata.annotations.nginx.org/proxy-read-timeout"
        yield each.finding(field, f"must be above the longest WAIT_MAX_S, {longest_s} s")
    if annotations.get("nginx.org/proxy-buffering") != "false":
        yield each.finding("metadata.annotations.nginx.org/proxy-buffering", "must be false: events would be held back")
    body = quantity(annotations.get("nginx.org/client-max-body-size", "0").replace("m", "Mi"))
    if body <= ApiSettings.model_fields["body_max_bytes"].default:
        field = "metadata.annotations.nginx.org/client-max-body-size"
        yield each.finding(field, "must be above BODY_MAX_BYTES, so that the API answers 413 itself")
    limited = "nginx.org/limit-req-rate" in annotations
    if limited and annotations.get("nginx.org/limit-req-reject-code") != "429":
        yield each.finding("metadata.annotations.nginx.org/limit-req-reject-code", "must be 429")
    classes = {
        release.spec["values"]["controller"]["ingressClass"]["name"]
        for release in tree.objects("HelmRelease")
        if "ingressClass" in release.spec.get("values", {}).get("controller", {})
    }
    if classes and each.spec["ingressClassName"] not in classes:
        yield each.finding("spec.ingressClassName", f"no such class: helm-releases/nginx.yaml makes {classes.pop()}")
    yield from _routes(each)


def _routes(each: Object) -> Iterator[Finding]:
    """Every route of the API is served, but those that stay inside."""
    paths = [path for rule in each.spec["rules"] for path in rule["http"]["paths"]]
    for route in sorted(api_routes()):
        served = any(_serves(path, route) for path in paths)
        if served == (route in INTERNAL_ROUTES):
            must = "must stay inside" if served else "is a route of the API, and no path serves it"
            yield each.finding(f"spec.rules.http.paths[{route}]", must)


def _serves(path: dict[str, Any], route: str) -> bool:
    prefix = path["path"].rstrip("/")
    exact = route == path["path"]
    return exact or (path["pathType"] == "Prefix" and route.startswith(f"{prefix}/"))


@cache
def api_routes() -> set[str]:
    """The paths of the API, its documentation's too."""
    from apps.api.app import create_app  # noqa: PLC0415 - only here is the API's framework needed

    nothing = {"celery_broker_url": f"amqp://api:{uuid4().hex}@none", "celery_result_backend": "redis://none"}
    settings = ApiSettings(**nothing, task_id_key="0" * 16, auth_disabled=True)  # type: ignore[arg-type]
    app = create_app(settings)
    return set(app.openapi()["paths"]) | {str(path) for route in app.routes if (path := getattr(route, "path", None))}


def _flux_path(tree: Tree, each: Object) -> Iterator[Finding]:
    path = each.spec["path"].removeprefix("./")
    if not (tree.root / path / "kustomization.yaml").exists():
        yield each.finding("spec.path", f"there is no kustomization.yaml in {path}")
