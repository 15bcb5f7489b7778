"""Rules for the values of the platform's charts that the guarantees of this project depend on."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ops.validate import completeness, placement
from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.quantity import parse_quantity

KEPT = ([None, "Retain"], "removing the release from git would delete the volumes")
NO_TOKEN = ([None, False], "the server does not use the Kubernetes API")
ORDER = "the priority of data is above the API's, and that is above the workers'"
VALUES: dict[str, AllowedValues] = {
    "rabbitmq": {
        "persistence.enabled": ([True], "a restart would lose every accepted task"),
        "definitions.enabled": ([True], "the definitions declare queues, users and limits"),
        "managementPlugin.enabled": ([True], "KEDA reads the lengths of the queues from the management API"),
        "config.memoryHighWatermark.type": ([None, "relative"], "the value is a share of the memory limit"),
        "serviceAccount.automountServiceAccountToken": NO_TOKEN,
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], ORDER),
    },
    "redis": {
        "persistence.enabled": ([True], "a restart would lose every result"),
        "architecture": (["standalone"], "a replica may lack a result that the primary has confirmed"),
        "auth.enabled": ([True], "any pod that reaches Redis could read and change results"),
        "auth.acl.enabled": ([True], "with one password for all, each component could run every command"),
        "auth.acl.existingSecret": (
            ["redis-auth"],
            "`make secrets` writes the permissions to this Secret",
        ),
        "serviceAccount.automountServiceAccountToken": NO_TOKEN,
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], ORDER),
    },
    "nginx-ingress": {
        "controller.enableCustomResources": ([False], "the CRDs are not installed"),
        "controller.allowEmptyIngressHost": (
            [None, False],
            "the chart passes it to the controller only with enableCustomResources: give the Ingress a host",
        ),
        "controller.ingressClass.create": ([True], "the Ingress of the base selects this class"),
        "controller.priorityClassName": (["sluice-platform"], ORDER),
        "controller.service.externalTrafficPolicy": ([None, "Cluster", "Local"], "Kubernetes has no other policy"),
        "controller.service.httpPort.nodePort": ([None, "", 30080], "kind maps this port, as docs/deploy.md describes"),
    },
    "keda": {
        "priorityClassName": (["sluice-platform"], ORDER),
        "rbac.create": ([None, True], "KEDA could not read ScaledObjects"),
        "rbac.scaledRefKinds": (
            [[{"apiGroup": "apps", "kind": "deployments"}]],
            "KEDA could read all objects of all kinds, including pods/exec",
        ),
        "crds.install": ([None, True], "the kind ScaledObject would not exist"),
        "webhooks.failurePolicy": (["Fail"], "an unchecked ScaledObject is worse than a delayed one"),
    },
}
# settings in a server's configuration text: (path of the text, separator of name and value, allowed values)
SETTINGS: dict[str, tuple[str, str | None, AllowedValues]] = {
    "rabbitmq": (
        "config.extraConfiguration",
        "=",
        {
            "default_queue_type": (["quorum"], "a classic queue is lost with its node"),
            "definitions.skip_if_unchanged": (["true"], "each start would import all definitions again"),
        },
    ),
    "redis": (
        "extraConfig",
        None,
        {
            "appendonly": (["yes"], "a restart would lose the results since the last snapshot"),
            "appendfsync": (["everysec", "always"], "a crash may lose a second of results, not more"),
            "maxmemory-policy": (["noeviction"], "clients would never get an evicted result"),
            "dir": (["/data"], "the volume is mounted at this path"),
            "save": (['""'], "Redis would refuse all writes after a failed snapshot"),
        },
    ),
}
# share of the memory limit; the rest is for a rewrite of the append-only file, which copies changed memory pages
REDIS_SHARE = 0.75


def check(tree: Tree) -> Iterator[Finding]:
    """Check every HelmRelease of the charts in VALUES."""
    for each in tree.objects("HelmRelease"):
        values = each.spec.get("values", {})
        yield from check_values(each, "spec.values", values, VALUES.get(each.name, {}))
        if each.name in SETTINGS:
            path, separator, table = SETTINGS[each.name]
            yield from check_values(each, f"spec.values.{path}", settings(at(values, path), separator), table)
        if each.name == "rabbitmq":
            yield from _nodes(each, values)
            yield from _disk(each, values)
            yield from _memory_watermark(each, values)
        if each.name == "redis":
            yield from _memory(each, values)
        if each.name == "keda":
            yield from _watched_namespaces(tree, each, values)


def settings(text: str | None, separator: str | None) -> dict[str, str]:
    """Name -> value of lines `name = value`. The last line of a name applies. Redis ignores the case of names."""
    lines = [line.strip() for line in (text or "").splitlines()]
    parts = [line.split(separator, 1) for line in lines if line and not line.startswith("#")]
    return {part[0].strip() if separator else part[0].lower(): part[-1].strip() for part in parts}


def _nodes(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """The number of nodes is odd and equals the configured cluster size, and no two nodes share a machine."""
    nodes = values.get("replicaCount", 1)
    if nodes % 2 == 0:
        yield each.finding("spec.values.replicaCount", f"{nodes} nodes survive no more losses than {nodes - 1}")
    cluster: AllowedValues = {
        "queueBalancing.clusterFormation.targetClusterSizeHint": (
            [nodes],
            "with another number a node becomes Ready but imports no queues and no bindings",
        ),
        "peerDiscoveryK8sPlugin.enabled": ([nodes > 1], "nodes discover each other with this plugin"),
    }
    if nodes == 1:
        yield from check_values(each, "spec.values", values, cluster)
        return
    cluster["pdb.maxUnavailable"] = ([str(number) for number in range(1, nodes // 2 + 1)], "a quorum must remain")
    yield from check_values(each, "spec.values", values, cluster)
    constraints = values.get("topologySpreadConstraints") or []
    by_host = [one for one in enumerate(constraints) if one[1].get("topologyKey") == placement.HOST]
    if not by_host:
        message = f"is missing: {nodes} nodes on one machine would fail together, and the quorum would be lost"
        yield each.finding("spec.values.topologySpreadConstraints", message)
    apart: AllowedValues = {
        # without minDomains, maxSkew compares only the existing machines
        "minDomains": ([nodes], f"on fewer than {nodes} machines two nodes would share one"),
        "maxSkew": ([1], "two nodes would share a machine"),
        "whenUnsatisfiable": (["DoNotSchedule"], "two nodes would share a machine"),
    }
    for number, one in by_host:
        yield from check_values(each, f"spec.values.topologySpreadConstraints.{number}", one, apart)


def _watched_namespaces(tree: Tree, each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """KEDA watches every namespace, or a list with each namespace that has a ScaledObject."""
    watched = {name.strip() for name in str(values.get("watchNamespace") or "").split(",")} - {""}
    needed = {one.namespace for one in tree.objects("ScaledObject")}
    needed |= {place.partition("/")[0] for place in completeness.APPLICATION["ScaledObject"]}
    if watched and needed - watched:
        message = f"must name {', '.join(sorted(needed - watched))} too: KEDA would ignore its ScaledObjects"
        yield each.finding("spec.values.watchNamespace", message)


def _disk(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """disk_free_limit is a small part of the volume: with a larger limit RabbitMQ would always block publishers."""
    free = settings(at(values, "config.extraConfiguration"), "=").get("disk_free_limit.absolute", "none")
    size = at(values, "persistence.size")
    free_bytes, volume_bytes = parse_quantity(free.removesuffix("B")), parse_quantity(size)
    if free_bytes is not None and volume_bytes is not None and free_bytes >= volume_bytes / 2:
        field = "spec.values.config.extraConfiguration.disk_free_limit.absolute"
        yield each.finding(field, f"{free} must be below half of the volume ({size}), or RabbitMQ blocks publishers")


def _memory_watermark(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    share = at(values, "config.memoryHighWatermark.value")
    if share is not None and not 0 < (parse_quantity(share) or 0) < 1:
        message = f"{share} must be a share of the memory limit, such as 0.6"
        yield each.finding("spec.values.config.memoryHighWatermark.value", message)


def _memory(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Redis' maxmemory is below the memory limit of the pod."""
    limit, maxmemory = parse_quantity(at(values, "resources.limits.memory")), memory_limit(each)
    if limit is None or maxmemory is None or not 0 < maxmemory <= limit * Fraction(REDIS_SHARE):
        message = (
            f"must be at most {REDIS_SHARE:.0%} of the pod's memory limit, which must be set: "
            "Redis needs the rest to rewrite its append-only file"
        )
        yield each.finding("spec.values.extraConfig.maxmemory", message)


def memory_limit(release: Object) -> int | None:
    """Redis' maxmemory in bytes; None if it is not set. For Redis, 1 mb is 1 MiB."""
    text = settings(at(release.spec, "values.extraConfig"), None).get("maxmemory", "none")
    size = parse_quantity(text.lower().replace("gb", "Gi").replace("mb", "Mi"))
    return None if size is None else int(size)
