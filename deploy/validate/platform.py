"""Rules for the platform's charts: the values without which the promises of the design do not hold."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from deploy.validate.quantities import quantity
from deploy.validate.tree import Finding, Object, Tree, at

Wanted = dict[str, tuple[tuple[object, ...], str]]
"""Path -> (what it may be, why)."""

VALUES: dict[str, Wanted] = {
    "rabbitmq": {
        "persistence.enabled": ((True,), "a restart would lose every accepted task"),
        "definitions.enabled": ((True,), "queues, users and limits come from there"),
        "managementPlugin.enabled": ((True,), "KEDA reads the queues' lengths there"),
    },
    "redis": {
        "persistence.enabled": ((True,), "a restart would lose every result"),
        "architecture": (("standalone",), "a replica that is promised to hold a result may lag behind"),
        "auth.enabled": ((True,), "any pod that reaches it could read and change results"),
    },
    "nginx-ingress": {
        "controller.allowEmptyIngressHost": ((True,), "the base's Ingress has no host"),
    },
    "keda": {
        "webhooks.failurePolicy": (("Fail",), "a ScaledObject that nobody checked is worse than one that must wait"),
    },
}
# lines of a server's own configuration: where they are, what parts a name from its value, what they must say
SETTINGS: dict[str, tuple[str, str | None, Wanted]] = {
    "rabbitmq": (
        "config.extraConfiguration",
        "=",
        {
            "default_queue_type": (("quorum",), "a classic queue is lost with its node"),
            "definitions.skip_if_unchanged": (("true",), "each start would declare everything again"),
        },
    ),
    "redis": (
        "extraConfig",
        None,
        {
            "appendonly": (("yes",), "a restart would lose the results since the last snapshot"),
            "appendfsync": (("everysec", "always"), "a crash may cost a second of results, not more"),
            "maxmemory-policy": (("noeviction",), "a result that is evicted is a task that is lost"),
            "dir": (("/data",), "the volume is mounted there"),
        },
    ),
}
# a rewrite of the append-only file copies the pages that change meanwhile
REDIS_SHARE = 0.75


def check(tree: Tree) -> Iterator[Finding]:
    """Every HelmRelease of a chart that is named here."""
    for each in tree.objects("HelmRelease"):
        values = each.spec.get("values", {})
        for path, (may, reason) in VALUES.get(each.name, {}).items():
            yield from _must(each, path, at(values, path), may, reason)
        if each.name in SETTINGS:
            path, separator, wanted = SETTINGS[each.name]
            there = settings(at(values, path), separator)
            for name, (may, reason) in wanted.items():
                yield from _must(each, f"{path}.{name}", there.get(name), may, reason)
        if each.name == "rabbitmq":
            yield from _nodes(each, values)
        if each.name == "redis":
            yield from _memory(each, values)


def settings(text: str | None, separator: str | None) -> dict[str, str]:
    """The lines `name value` or `name = value`; the last of a name counts."""
    lines = [line.strip() for line in (text or "").splitlines()]
    parts = [line.split(separator, 1) for line in lines if line and not line.startswith("#")]
    return {part[0].strip(): part[-1].strip() for part in parts}


def _must(each: Object, path: str, value: object, may: tuple[object, ...], reason: str) -> Iterator[Finding]:
    if value not in may:
        wanted = " or ".join(map(str, may))
        yield each.finding(f"spec.values.{path}", f"must be {wanted}, not {value}: {reason}")


def _nodes(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    nodes = values.get("replicaCount", 1)
    if nodes % 2 == 0:
        yield each.finding("spec.values.replicaCount", f"{nodes} nodes survive no more losses than {nodes - 1}")
    hint = "queueBalancing.clusterFormation.targetClusterSizeHint"
    reason = "with another number a node is Ready, and imports no queue and no binding"
    yield from _must(each, hint, at(values, hint), (nodes,), reason)
    discovery = "peerDiscoveryK8sPlugin.enabled"
    yield from _must(each, discovery, at(values, discovery), (nodes > 1,), "nodes find each other by it")


def _memory(each: Object, values: dict[str, Any]) -> Iterator[Finding]:
    """Redis' own limit is below the pod's; redis counts `mb` in powers of two."""
    most = quantity(at(values, "resources.limits.memory"))
    own = settings(values.get("extraConfig"), None).get("maxmemory", "none")
    mine = quantity(own.lower().replace("gb", "Gi").replace("mb", "Mi"))
    if most is not None and (mine is None or not 0 < mine <= most * Decimal(REDIS_SHARE)):
        field = "spec.values.extraConfig.maxmemory"
        yield each.finding(field, f"{own} must be at most {REDIS_SHARE:.0%} of the pod's limit: it rewrites its log")
