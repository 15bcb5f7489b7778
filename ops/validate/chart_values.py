"""Rules for the values of the platform's charts, without which the promises of this project do not hold."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ops.validate import completeness, placement
from ops.validate.allowed_values import Wanted, must
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.quantity import parse_quantity

KEPT = ([None, "Retain"], "removing the release from git would delete the volumes")
NO_TOKEN = ([None, False], "it does not use the Kubernetes API")
ORDER = "data above API above workers"
VALUES: dict[str, Wanted] = {
    "rabbitmq": {
        "persistence.enabled": ([True], "a restart would lose every accepted task"),
        "definitions.enabled": ([True], "queues, users and limits come from there"),
        "managementPlugin.enabled": ([True], "KEDA reads the queues' lengths there"),
        "config.memoryHighWatermark.type": ([None, "relative"], "its value is a share of the limit"),
        "serviceAccount.automountServiceAccountToken": NO_TOKEN,
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], ORDER),
    },
    "redis": {
        "persistence.enabled": ([True], "a restart would lose every result"),
        "architecture": (["standalone"], "a replica may lack a result that is promised"),
        "auth.enabled": ([True], "any pod that reaches it could read and change results"),
        "auth.acl.enabled": ([True], "one password would let each part do everything"),
        "auth.acl.existingSecret": (["redis-auth"], "`make secrets` writes the rights of each part there"),
        "serviceAccount.automountServiceAccountToken": NO_TOKEN,
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], ORDER),
    },
    "nginx-ingress": {
        "controller.enableCustomResources": ([False], "their CRDs are not installed"),
        "controller.allowEmptyIngressHost": (
            [None, False],
            "the chart passes it to the controller with enableCustomResources only: give the Ingress a host",
        ),
        "controller.ingressClass.create": ([True], "the Ingress of the base is of that class"),
        "controller.priorityClassName": (["sluice-platform"], ORDER),
        "controller.service.externalTrafficPolicy": ([None, "Cluster", "Local"], "Kubernetes knows no other"),
        "controller.service.httpPort.nodePort": ([None, "", 30080], "kind maps it, as docs/deploy.md says"),
    },
    "keda": {
        "priorityClassName": (["sluice-platform"], ORDER),
        "rbac.create": ([None, True], "KEDA could read no ScaledObject"),
        "rbac.scaledRefKinds": (
            [[{"apiGroup": "apps", "kind": "deployments"}]],
            "KEDA could read every object of every kind, pods/exec too",
        ),
        "crds.install": ([None, True], "there would be no kind ScaledObject"),
        "webhooks.failurePolicy": (["Fail"], "an unchecked ScaledObject is worse than one that must wait"),
    },
}
# settings in a server's configuration text: (path of the text, separator of name and value, allowed values)
SETTINGS: dict[str, tuple[str, str | None, Wanted]] = {
    "rabbitmq": (
        "config.extraConfiguration",
        "=",
        {
            "default_queue_type": (["quorum"], "a classic queue is lost with its node"),
            "definitions.skip_if_unchanged": (["true"], "each start would declare everything again"),
        },
    ),
    "redis": (
        "extraConfig",
        None,
        {
            "appendonly": (["yes"], "a restart would lose the results since the last snapshot"),
            "appendfsync": (["everysec", "always"], "a crash may lose a second of results, not more"),
            "maxmemory-policy": (["noeviction"], "an evicted result is a lost task"),
            "dir": (["/data"], "the volume is mounted there"),
            "save": (['""'], "Redis would refuse all writes after a snapshot that fails"),
        },
    ),
}
# a rewrite of the append-only file copies the pages that change meanwhile
REDIS_SHARE = 0.75


def check(tree: Tree) -> Iterator[Finding]:
    """Check every HelmRelease of a chart that is named here."""
    for each in tree.objects("HelmRelease"):
        values = each.spec.get("values", {})
        yield from must(each, "spec.values", values, VALUES.get(each.name, {}))
        if each.name in SETTINGS:
            path, separator, wanted = SETTINGS[each.name]
            yield from must(each, f"spec.values.{path}", settings(at(values, path), separator), wanted)
        if each.name == "rabbitmq":
            yield from _nodes(each, values)
            yield from _disk(each, values)
            yield from _watermark(each, values)
        if each.name == "redis":
            yield from _memory(each, values)
        if each.name == "keda":
            yield from _watched(tree, each, values)


def settings(text: str | None, separator: str | None) -> dict[str, str]:
    """The lines `name value` or `name = value`; the last of a name counts. Redis ignores the case of its names."""
    lines = [line.strip() for line in (text or "").splitlines()]
    parts = [line.split(separator, 1) for line in lines if line and not line.startswith("#")]
    return {part[0].strip() if separator else part[0].lower(): part[-1].strip() for part in parts}


def _nodes(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """The number of nodes is odd and equals the configured cluster size, and no two nodes share a machine."""
    nodes = values.get("replicaCount", 1)
    if nodes % 2 == 0:
        yield each.finding("spec.values.replicaCount", f"{nodes} nodes survive no more losses than {nodes - 1}")
    wanted: Wanted = {
        "queueBalancing.clusterFormation.targetClusterSizeHint": (
            [nodes],
            "with another number a node is Ready, and imports no queue and no binding",
        ),
        "peerDiscoveryK8sPlugin.enabled": ([nodes > 1], "nodes find each other by it"),
    }
    if nodes == 1:
        yield from must(each, "spec.values", values, wanted)
        return
    wanted["pdb.maxUnavailable"] = ([str(number) for number in range(1, nodes // 2 + 1)], "the quorum must stay")
    yield from must(each, "spec.values", values, wanted)
    constraints = values.get("topologySpreadConstraints") or []
    by_host = [one for one in enumerate(constraints) if one[1].get("topologyKey") == placement.HOST]
    if not by_host:
        message = f"is missing: {nodes} nodes on one machine are lost together, and with them the quorum"
        yield each.finding("spec.values.topologySpreadConstraints", message)
    apart: Wanted = {
        # without minDomains, maxSkew compares only the existing machines
        "minDomains": ([nodes], f"on fewer than {nodes} machines two nodes would share one"),
        "maxSkew": ([1], "two nodes would share a machine"),
        "whenUnsatisfiable": (["DoNotSchedule"], "two nodes would share a machine"),
    }
    for number, one in by_host:
        yield from must(each, f"spec.values.topologySpreadConstraints.{number}", one, apart)


def _watched(tree: Tree, each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """KEDA watches every namespace, or a list with each namespace that has a ScaledObject."""
    watched = {name.strip() for name in str(values.get("watchNamespace") or "").split(",")} - {""}
    needed = {one.namespace for one in tree.objects("ScaledObject")}
    needed |= {place.partition("/")[0] for place in completeness.APPLICATION["ScaledObject"]}
    if watched and needed - watched:
        message = f"must name {', '.join(sorted(needed - watched))} too: KEDA would ignore its ScaledObjects"
        yield each.finding("spec.values.watchNamespace", message)


def _disk(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """The space that must stay free is a small part of the volume; with more, RabbitMQ blocks publishers for ever."""
    free = settings(at(values, "config.extraConfiguration"), "=").get("disk_free_limit.absolute", "none")
    size = at(values, "persistence.size")
    least, most = parse_quantity(free.removesuffix("B")), parse_quantity(size)
    if least is not None and most is not None and least >= most / 2:
        field = "spec.values.config.extraConfiguration.disk_free_limit.absolute"
        yield each.finding(field, f"{free} must be below half of the volume, {size}: else publishers are blocked")


def _watermark(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    share = at(values, "config.memoryHighWatermark.value")
    if share is not None and not 0 < (parse_quantity(share) or 0) < 1:
        message = f"{share} must be a share of the memory limit, as 0.6"
        yield each.finding("spec.values.config.memoryHighWatermark.value", message)


def _memory(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Redis' own limit is below the pod's."""
    limit, own = parse_quantity(at(values, "resources.limits.memory")), memory_limit(each)
    if limit is None or own is None or not 0 < own <= limit * Fraction(REDIS_SHARE):
        message = f"must be at most {REDIS_SHARE:.0%} of the pod's limit, which must be set: Redis rewrites its log"
        yield each.finding("spec.values.extraConfig.maxmemory", message)


def memory_limit(release: Object) -> int | None:
    """Redis' own limit, in bytes; None if there is none. Redis counts `mb` in powers of two."""
    own = settings(at(release.spec, "values.extraConfig"), None).get("maxmemory", "none")
    found = parse_quantity(own.lower().replace("gb", "Gi").replace("mb", "Mi"))
    return None if found is None else int(found)
