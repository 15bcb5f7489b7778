"""Rules for the platform's charts: the values without which the promises of the design do not hold."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ops.validate import placement, policy, wholeness
from ops.validate.references import counts
from ops.validate.tree import Finding, Object, Tree, at
from ops.validate.wanted import Wanted, must
from sluice_planner.quantity import parse_quantity

KEPT = ([None, "Retain"], "taking the release out of git would delete the volumes")
VALUES: dict[str, Wanted] = {
    "rabbitmq": {
        "persistence.enabled": ([True], "a restart would lose every accepted task"),
        "definitions.enabled": ([True], "queues, users and limits come from there"),
        "managementPlugin.enabled": ([True], "KEDA reads the queues' lengths there"),
        "config.memoryHighWatermark.type": ([None, "relative"], "its value is a share of the limit"),
        "serviceAccount.automountServiceAccountToken": ([None, False], "it asks the Kubernetes API nothing"),
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], "data above API above workers"),
    },
    "redis": {
        "persistence.enabled": ([True], "a restart would lose every result"),
        "architecture": (["standalone"], "a replica that is promised to hold a result may lag behind"),
        "auth.enabled": ([True], "any pod that reaches it could read and change results"),
        "auth.acl.enabled": ([True], "one password would let each part do everything"),
        "auth.acl.existingSecret": (["redis-auth"], "`make secrets` writes each part's rights there"),
        "serviceAccount.automountServiceAccountToken": ([None, False], "it asks the Kubernetes API nothing"),
        "persistentVolumeClaimRetentionPolicy.whenDeleted": KEPT,
        "persistentVolumeClaimRetentionPolicy.whenScaled": KEPT,
        "priorityClassName": (["sluice-data"], "data above API above workers"),
    },
    "nginx-ingress": {
        "controller.enableCustomResources": ([False], "their CRDs are not installed"),
        "controller.allowEmptyIngressHost": (
            [None, False],
            "the chart hands it to the controller with enableCustomResources only: give the Ingress a host",
        ),
        "controller.ingressClass.create": ([True], "the base's Ingress is of that class"),
        "controller.priorityClassName": (["sluice-platform"], "data above API above workers"),
        "controller.service.type": ([None, "LoadBalancer", "NodePort", "ClusterIP"], "Kubernetes knows no other"),
        "controller.service.externalTrafficPolicy": ([None, "Cluster", "Local"], "Kubernetes knows no other"),
        "controller.service.httpPort.nodePort": ([None, "", 30080], "kind maps it, as docs/deploy.md says"),
    },
    "keda": {
        "priorityClassName": (["sluice-platform"], "data above API above workers"),
        "rbac.create": ([None, True], "KEDA could read no ScaledObject"),
        "rbac.scaledRefKinds": (
            [[{"apiGroup": "apps", "kind": "deployments"}]],
            "KEDA could read every object of every kind, pods/exec too",
        ),
        "crds.install": ([None, True], "there would be no kind ScaledObject"),
        "webhooks.failurePolicy": (["Fail"], "a ScaledObject that nobody checked is worse than one that must wait"),
    },
}
# lines of a server's own configuration: where they are, what parts a name from its value, what they must say
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
            "appendfsync": (["everysec", "always"], "a crash may cost a second of results, not more"),
            "maxmemory-policy": (["noeviction"], "a result that is evicted is a task that is lost"),
            "dir": (["/data"], "the volume is mounted there"),
            "save": (['""'], "Redis would refuse all writes after a snapshot that fails"),
        },
    ),
}
NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
# the values that a chart gives to a container as its resources
RESOURCES = {
    "rabbitmq": ("resources", "initContainer.resources"),
    "redis": ("resources",),
    "nginx-ingress": ("controller.resources", "controller.initContainerResources"),
    "keda": ("resources.operator", "resources.metricServer", "resources.webhooks"),
}
# where a chart says how many pods a part has, where it spreads them, and the name in their labels
SPREAD = {
    "nginx-ingress": (("controller.replicaCount", "controller", "nginx-ingress"),),
    "keda": (
        ("operator.replicaCount", "topologySpreadConstraints.operator", "keda-operator"),
        ("metricsServer.replicaCount", "topologySpreadConstraints.metricsServer", "keda-operator-metrics-apiserver"),
        ("webhooks.replicaCount", "topologySpreadConstraints.webhooks", "keda-admission-webhooks"),
    ),
}
# a rewrite of the append-only file copies the pages that change meanwhile
REDIS_SHARE = 0.75


def check(tree: Tree) -> Iterator[Finding]:
    """Every HelmRelease of a chart that is named here."""
    for each in tree.objects("HelmRelease"):
        values = each.spec.get("values", {})
        yield from must(each, "spec.values", values, VALUES.get(each.name, {}))
        if each.name in SETTINGS:
            path, separator, wanted = SETTINGS[each.name]
            there = settings(at(values, path), separator)
            yield from must(each, f"spec.values.{path}", there, wanted)
        if each.name == "rabbitmq":
            yield from _nodes(each, values)
            yield from _disk(each, values)
            yield from _watermark(each, values)
            yield from _machines(each, values)
        if each.name == "redis":
            yield from _memory(each, values)
        if each.name == "keda":
            yield from _watched(tree, each, values)
        for path in RESOURCES.get(each.name, ()):
            yield from policy.resources(each, f"spec.values.{path}", at(values, path) or {})
        yield from _spread(each, values)


def settings(text: str | None, separator: str | None) -> dict[str, str]:
    """The lines `name value` or `name = value`; the last of a name counts. Redis ignores the case of its names."""
    lines = [line.strip() for line in (text or "").splitlines()]
    parts = [line.split(separator, 1) for line in lines if line and not line.startswith("#")]
    return {part[0].strip() if separator else part[0].lower(): part[-1].strip() for part in parts}


def _nodes(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
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
    if nodes > 1:
        wanted["pdb.maxUnavailable"] = ([str(number) for number in range(1, nodes // 2 + 1)], "the quorum must stay")
    yield from must(each, "spec.values", values, wanted)


def _machines(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Several nodes are on as many machines: maxSkew alone compares only the machines that there are."""
    nodes, field = values.get("replicaCount", 1), "spec.values.topologySpreadConstraints"
    by_host = [one for one in values.get("topologySpreadConstraints") or [] if one.get("topologyKey") == placement.HOST]
    if nodes > 1 and not by_host:
        yield each.finding(
            field, f"is missing: {nodes} nodes on one machine are lost together, and with them the quorum"
        )
    for number, one in enumerate(by_host if nodes > 1 else []):
        wanted: Wanted = {
            "minDomains": ([nodes], f"on fewer than {nodes} machines two nodes would share one"),
            "maxSkew": ([1], "two nodes would share a machine"),
            "whenUnsatisfiable": (["DoNotSchedule"], "two nodes would share a machine"),
        }
        yield from must(each, f"{field}.{number}", one, wanted)
    yield from _counted(each, field, by_host, "rabbitmq")


def _spread(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Replicas of one part are on different machines where there are any."""
    for replicas, path, name in SPREAD.get(each.name, ()):
        there = at(values, path)
        spec = there if isinstance(there, dict) else {"topologySpreadConstraints": there}
        if (at(values, replicas) or 1) > 1 and not placement.is_spread(spec):
            field = f"spec.values.{path}"
            yield each.finding(field, "does not spread the replicas: a lost machine may take all of them")
        yield from _counted(each, f"spec.values.{path}", spec.get("topologySpreadConstraints") or [], name)


def _counted(each: Object, field: str, constraints: list[dict[str, Any]], name: str) -> Iterator[Finding]:
    """Constraints that are about other pods, or about none, do not spread these."""
    for number, one in enumerate(constraints):
        if not counts(one, {NAME: name, INSTANCE: each.name}):
            message = f"does not select the pods with the labels {NAME}: {name} and {INSTANCE}"
            yield each.finding(f"{field}.{number}.labelSelector", message)


def _watched(tree: Tree, each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """KEDA watches every namespace, or a list that has each of a ScaledObject."""
    watched = {name.strip() for name in str(values.get("watchNamespace") or "").split(",")} - {""}
    needed = {one.namespace for one in tree.objects("ScaledObject")}
    needed |= {place.partition("/")[0] for place in wholeness.APPLICATION["ScaledObject"]}
    if watched and needed - watched:
        message = f"must name {', '.join(sorted(needed - watched))} too: its ScaledObjects would be passed over"
        yield each.finding("spec.values.watchNamespace", message)


def _disk(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """The space that must stay free is a small part of the volume: with more, publishers would be blocked for ever."""
    free = settings(at(values, "config.extraConfiguration"), "=").get("disk_free_limit.absolute", "none")
    size = at(values, "persistence.size")
    least, most = parse_quantity(free.removesuffix("B")), parse_quantity(size)
    if least is not None and most is not None and least >= most / 2:
        field = "spec.values.config.extraConfiguration.disk_free_limit.absolute"
        yield each.finding(field, f"{free} must be below half of the volume, {size}: with less publishers are blocked")


def _watermark(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    share = at(values, "config.memoryHighWatermark.value")
    if at(values, "resources.limits.memory") is None:
        yield each.finding("spec.values.resources.limits.memory", "is missing: the watermark is a share of it")
    if share is not None and not 0 < (parse_quantity(share) or 0) < 1:
        yield each.finding("spec.values.config.memoryHighWatermark.value", f"{share} is no share of the memory, as 0.6")


def _memory(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Redis' own limit is below the pod's; redis counts `mb` in powers of two."""
    most = parse_quantity(at(values, "resources.limits.memory"))
    own = settings(values.get("extraConfig"), None).get("maxmemory", "none")
    mine = memory_limit(each)
    if most is None or mine is None or not 0 < mine <= most * Fraction(REDIS_SHARE):
        field = "spec.values.extraConfig.maxmemory"
        yield each.finding(field, f"{own} must be at most {REDIS_SHARE:.0%} of the pod's limit: it rewrites its log")


def memory_limit(release: Object) -> int | None:
    """Redis' own limit, in bytes; None if it is none."""
    own = settings(release.spec.get("values", {}).get("extraConfig"), None).get("maxmemory", "none")
    found = parse_quantity(own.lower().replace("gb", "Gi").replace("mb", "Mi"))
    return None if found is None else int(found)
