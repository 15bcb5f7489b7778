"""Rules for ScaledObjects: the rules of `sluice lint`, and agreement with the contract and the broker."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from apps.contract import topology
from apps.tasks import TASKS
from ops import definitions, secrets
from ops.validate import network
from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.tree import Finding, Object, Tree
from sluice_planner.rules.findings import check_overlay
from sluice_planner.rules.registry import Assumptions

# the fields of a RabbitMQ trigger
TRIGGER: AllowedValues = {
    "metadata.protocol": (["http"], "with AMQP, KEDA neither counts unacked tasks nor uses the fallback"),
    "metadata.mode": (["QueueLength"], "value is a number of tasks per worker"),
    "metadata.vhostName": ([definitions.VHOST], "the queues are in this vhost"),
    "metricType": ([None, "AverageValue"], "value is a number of tasks per worker"),
    "useCachedMetrics": ([True], "without it pollingInterval has no effect: each sync of the HPA queries the broker"),
}
# the parameters that KEDA's scaler needs from the TriggerAuthentication
CREDENTIALS = ["password", "username"]


def check(tree: Tree) -> Iterator[Finding]:
    """Check every ScaledObject and TriggerAuthentication."""
    yield from _lint(tree)
    for each in tree.objects("ScaledObject"):
        if (each.spec.get("fallback") or {}).get("failureThreshold") == 0:
            yield each.finding(
                "spec.fallback.failureThreshold",
                "must be 1 or more: at least one poll must fail first",
            )
        for number, trigger in enumerate(each.spec["triggers"]):
            if trigger["type"] == "rabbitmq":
                yield from _rabbitmq(each, f"spec.triggers.{number}", trigger)
        yield from _queues(each)
    for each in tree.objects("TriggerAuthentication"):
        parameters = sorted(entry["parameter"] for entry in each.spec.get("secretTargetRef") or [])
        if parameters != CREDENTIALS:
            yield each.finding("spec.secretTargetRef", f"must set {' and '.join(CREDENTIALS)}, not {parameters}")


def _lint(tree: Tree) -> Iterator[Finding]:
    """Apply the rules of `sluice lint`, of every level, with the contract's numbers as assumptions."""
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    assumed = Assumptions(task_limit_s=limit_s, queue_max_length=topology.MAX_LENGTH_MESSAGES)
    for target in sorted({each.target for each in tree.objects("ScaledObject")}):
        files = {each.title: each.file for each in tree.objects(target=target)}
        for each in check_overlay(list(tree.objects(target=target)), assumed):
            field = re.sub(r"\[(\d+)\]", r".\1", each.field)
            yield Finding(files[each.title], each.title, field, f"{each.message}: {each.fix} ({each.rule.id})", target)


def _queues(each: Object) -> Iterator[Finding]:
    """Each queue in WORK_QUEUES has a trigger, in the same order, because overlays patch triggers by index."""
    field, contract = "spec.triggers.metadata.queueName", "WORK_QUEUES (apps/contract/topology.py)"
    triggers = [trigger["metadata"] for trigger in each.spec["triggers"] if trigger["type"] == "rabbitmq"]
    queues = [metadata["queueName"] for metadata in triggers if "queueName" in metadata]
    missing = [name for name in topology.WORK_QUEUES if name not in queues]
    unknown = [name for name in queues if name not in topology.WORK_QUEUES]
    for name in missing:
        yield each.finding(field, f"the queue {name} has no trigger, so KEDA starts no workers for it: add a trigger")
    for name in unknown:
        yield each.finding(field, f"{name} is not in {contract}: remove the trigger, or add the queue to the list")
    if not missing and not unknown and queues != list(topology.WORK_QUEUES):
        yield each.finding(field, f"the triggers must be in the order of {contract}, because overlays patch by index")


def _rabbitmq(each: Object, where: str, trigger: dict[str, Any]) -> Iterator[Finding]:
    yield from check_values(each, where, trigger, TRIGGER)
    ports = {port for source, _, _, port in network.FLOWS if source == network.KEDA}
    url = urlsplit(str(trigger["metadata"].get("host")))
    if url.hostname != secrets.BROKER.partition(":")[0] or url.port not in ports:
        message = f"{url.netloc} is not the broker's management API, the only address that KEDA may reach"
        yield each.finding(f"{where}.metadata.host", message)
