"""Rules across files: the contract, the API's code, the Secrets' URLs and the manifests must agree."""

from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import uuid4

from apps.contract import topology
from apps.contract.settings import ApiSettings
from ops import definitions, secrets
from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.durations import parse_duration
from sluice_planner.quantity import parse_quantity

ANNOTATIONS: AllowedValues = {"nginx.org/proxy-buffering": (["false"], "NGINX would buffer the events of a stream")}
# checked only on an Ingress with a rate limit
RATE_LIMIT_ANNOTATIONS: AllowedValues = {
    "nginx.org/limit-req-reject-code": (["429"], "503 would mean that the API is overloaded")
}
INTERNAL_ROUTES = {"/healthz", "/metrics", "/readyz"}


def check(tree: Tree) -> Iterator[Finding]:
    """Check the definitions, and the HelmReleases and Ingresses of every target."""
    for name, _ in definitions.differences(tree.root):
        source = "apps/contract/topology.py" if name == definitions.FILE else "the configuration in its checksums"
        yield Finding(name, "definitions", "text", f"differs from {source}: run `make definitions` and commit the file")
    for name in definitions.without_sums(tree.root):
        message = "needs a sluice/<name>-config-sha256 of its own: otherwise a changed configuration restarts no pod"
        yield Finding(name, "HelmRelease data/rabbitmq", "spec.values.podAnnotations", message)
    for each in tree.objects("HelmRelease"):
        yield from _release(each)
    for each in tree.objects("Ingress"):
        yield from _annotations(each, each.body["metadata"].get("annotations") or {})
        yield from _class(tree, each)
        yield from _routes(each)


def _release(each: Object) -> Iterator[Finding]:
    """The Secrets' URLs use the names of the charts' Services, and the broker has the contract's configuration."""
    hosts = {address.partition(":")[0] for address in (secrets.BROKER, secrets.REDIS)}
    name = at(each.spec, "values.fullnameOverride")
    if each.namespace == "data" and f"{name}.data.svc" not in hosts:
        yield each.finding("spec.values.fullnameOverride", f"{name}: the Secrets' URLs name {', '.join(sorted(hosts))}")
    path = "values.config.advancedConfiguration"
    if each.name == "rabbitmq" and (at(each.spec, path) or "").strip() != topology.ADVANCED_CONFIG:
        yield each.finding(f"spec.{path}", f"must be {topology.ADVANCED_CONFIG} as in apps/contract/topology.py")


def _annotations(each: Object, annotations: dict[str, str]) -> Iterator[Finding]:
    """NGINX's read timeout is above the API's longest long poll, and its body limit is above the API's body limit."""
    where = "metadata.annotations"
    if (parse_duration(annotations.get("nginx.org/proxy-read-timeout", "0s")) or 0) <= longest_wait_s():
        message = f"must be above the longest WAIT_MAX_S, {longest_wait_s()} s"
        yield each.finding(f"{where}.nginx.org/proxy-read-timeout", message)
    body = parse_quantity(annotations.get("nginx.org/client-max-body-size", "0").replace("m", "Mi"))
    if body is None or body <= ApiSettings.model_fields["body_max_bytes"].default:
        message = "must be above BODY_MAX_BYTES, so that the API answers 413 itself"
        yield each.finding(f"{where}.nginx.org/client-max-body-size", message)
    yield from check_values(each, where, annotations, ANNOTATIONS)
    if "nginx.org/limit-req-rate" in annotations:
        yield from check_values(each, where, annotations, RATE_LIMIT_ANNOTATIONS)


def longest_wait_s() -> int:
    """The longest long poll that a setting of the API can allow."""
    bounds = ApiSettings.model_fields["wait_max_s"].metadata
    return next(int(bound.le) for bound in bounds if hasattr(bound, "le"))


def _class(tree: Tree, each: Object) -> Iterator[Finding]:
    """The Ingress selects the IngressClass that the chart of NGINX creates."""
    names = {at(release.spec, "values.controller.ingressClass.name") for release in tree.objects("HelmRelease")}
    classes = sorted(filter(None, names))
    if classes and each.spec.get("ingressClassName") not in classes:
        yield each.finding("spec.ingressClassName", f"no such class: helm-releases/nginx.yaml creates {classes[0]}")


def _routes(each: Object) -> Iterator[Finding]:
    """The Ingress serves every route of the API, except the internal routes."""
    paths = [path for rule in each.spec.get("rules") or [] for path in rule.get("http", {}).get("paths", [])]
    if each.spec.get("defaultBackend"):  # the controller serves / with the default backend
        paths.append({"path": "/", "pathType": "Prefix"})
    for route in sorted(api_routes()):
        served = any(_serves(path, route) for path in paths)
        if served == (route in INTERNAL_ROUTES):
            message = "must not be reachable from outside" if served else "no path serves this route of the API"
            yield each.finding(f"spec.rules.http.paths[{route}]", message)


def _serves(path: dict[str, Any], route: str) -> bool:
    """Whether a path serves a route. A path that is not Exact is a prefix: /health also serves /healthz."""
    text = path.get("path", "/")
    return route == text or (path["pathType"] != "Exact" and route.startswith(text))


@cache
def api_routes() -> set[str]:
    """The paths of the API, including its documentation."""
    from fastapi.routing import iter_route_contexts  # noqa: PLC0415 - imports FastAPI only if this rule runs

    from apps.api.app import create_app  # noqa: PLC0415 - same

    unused = {"celery_broker_url": f"amqp://api:{uuid4().hex}@none", "celery_result_backend": "redis://none"}
    settings = ApiSettings(**unused, task_id_key="0" * 16, auth_disabled=True)  # type: ignore[arg-type]
    return {str(route.path) for route in iter_route_contexts(create_app(settings).routes)}
