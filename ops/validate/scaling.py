"""Rules for ScaledObjects: what KEDA's scaler takes, and what the contract, the broker and the workers need."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from apps.contract import topology
from apps.tasks import TASKS
from ops import definitions, secrets
from ops.validate import network, schemas
from ops.validate.tree import Finding, Object, Tree
from ops.validate.wanted import Wanted, must
from sluice_planner.rules.findings import check_overlay
from sluice_planner.rules.registry import Assumptions

# what a trigger on RabbitMQ must say, and why
TRIGGER: Wanted = {
    "metadata.protocol": (["http"], "by AMQP KEDA counts no unacked task, and the fallback never comes"),
    "metadata.mode": (["QueueLength"], "value is a number of tasks for each worker"),
    "metadata.vhostName": ([definitions.VHOST], "the queues are there"),
    "metadata.queueLength": ([None], "is deprecated, mode and value take its place"),
    "metricType": ([None, "AverageValue"], "value is a number of tasks for each worker"),
    "useCachedMetrics": ([True], "without it pollingInterval does nothing: each sync of the HPA asks the broker"),
}


def check(tree: Tree) -> Iterator[Finding]:
    """Every ScaledObject of every target."""
    yield from _linted(tree)
    for each in tree.objects("ScaledObject"):
        authentications = {other.name: other for other in tree.objects("TriggerAuthentication", target=each.target)}
        if (each.spec.get("fallback") or {}).get("failureThreshold") == 0:
            yield each.finding("spec.fallback.failureThreshold", "must be 1 or more: one failed poll at least")
        for name in each.body["metadata"].get("annotations") or {}:
            if name.startswith("autoscaling.keda.sh/"):
                field = f"metadata.annotations.{name}"
                yield each.finding(
                    field, "is for a person's hand, not for git: with it KEDA does not scale by the queue"
                )
        for number, trigger in enumerate(each.spec["triggers"]):
            used = authentications.get((trigger.get("authenticationRef") or {}).get("name", ""))
            given = {entry["parameter"] for entry in used.spec.get("secretTargetRef") or []} if used else set()
            yield from _parameters(each, number, trigger, given)
            if trigger["type"] == "rabbitmq":
                yield from _rabbitmq(each, f"spec.triggers.{number}", trigger)
        yield from _queues(each)


def _queues(each: Object) -> Iterator[Finding]:
    """The triggers are those of WORK_QUEUES, in its order, by which overlays patch them."""
    field, contract = "spec.triggers.metadata.queueName", "WORK_QUEUES (apps/contract/topology.py)"
    triggers = [trigger["metadata"] for trigger in each.spec["triggers"] if trigger["type"] == "rabbitmq"]
    queues = [metadata["queueName"] for metadata in triggers if "queueName" in metadata]
    missing = [name for name in topology.WORK_QUEUES if name not in queues]
    unknown = [name for name in queues if name not in topology.WORK_QUEUES]
    for name in missing:
        yield each.finding(field, f"the queue {name} has no trigger, so no worker is started for it: add one")
    for name in unknown:
        yield each.finding(field, f"{name} is not in {contract}: take the trigger away, or add the queue there")
    if not missing and not unknown and queues != list(topology.WORK_QUEUES):
        yield each.finding(field, f"the triggers must be in the order of {contract}, as overlays patch them by number")


def _linted(tree: Tree) -> Iterator[Finding]:
    """The rules of `sluice lint`, of every level, with the contract's numbers in place of its assumptions."""
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    assumed = Assumptions(task_limit_s=limit_s, queue_max_length=topology.MAX_LENGTH_MESSAGES)
    for target in sorted({each.target for each in tree.objects("ScaledObject")}):
        for each in check_overlay(list(tree.objects(target=target)), assumed):
            field = re.sub(r"\[(\d+)\]", r".\1", each.field)
            yield Finding(each.source, each.title, field, f"{each.message}: {each.fix} ({each.rule.id})", target)


def _parameters(each: Object, number: int, trigger: dict[str, Any], given: set[str]) -> Iterator[Finding]:
    """What KEDA would not read, silently, and what it would miss."""
    where, metadata = f"spec.triggers.{number}", trigger["metadata"]
    scaler = scalers().get(trigger["type"])
    if scaler is None:
        yield each.finding(f"{where}.type", f"KEDA has no scaler {trigger['type']}")
        return
    names = {entry["name"] for entry in scaler if entry.get("metadataVariableReadable")}
    names |= {f"{entry['name']}FromEnv" for entry in scaler if entry.get("envVariableReadable")}
    for name in sorted(metadata.keys() - names):
        yield each.finding(f"{where}.metadata.{name}", f"KEDA's {trigger['type']} scaler has no such parameter")
    there = given | {name.removesuffix("FromEnv") for name in metadata}
    for entry in scaler:
        if not entry.get("optional") and "default" not in entry and entry["name"] not in there:
            yield each.finding(f"{where}.metadata.{entry['name']}", "is missing")
    may = {entry["name"] for entry in scaler if entry.get("triggerAuthenticationVariableReadable")}
    for name in sorted(given - may):
        field = f"{where}.authenticationRef"
        yield each.finding(field, f"KEDA's {trigger['type']} scaler takes no {name} from a TriggerAuthentication")


@cache
def scalers() -> dict[str, list[dict[str, Any]]]:
    """The parameters of each of KEDA's scalers, as the pinned KEDA itself lists them."""
    document = json.loads((schemas.folder() / schemas.SCALERS).read_text())
    return {each["type"]: each["parameters"] for each in document["scalers"]}


def _rabbitmq(each: Object, where: str, trigger: dict[str, Any]) -> Iterator[Finding]:
    metadata = trigger["metadata"]
    yield from must(each, where, trigger, TRIGGER)
    if not _is_number(metadata.get("activationValue", "0")):
        yield each.finding(f"{where}.metadata.activationValue", f"{metadata['activationValue']} is no number")
    if not _is_number(metadata.get("value")) or float(metadata["value"]) <= 0:
        yield each.finding(f"{where}.metadata.value", f"must be a number above 0, not {metadata.get('value')}")
    ports = {port for source, _, _, port in network.FLOWS if source == network.KEDA}
    url = urlsplit(str(metadata.get("host")))
    if url.hostname != secrets.BROKER.partition(":")[0] or url.port not in ports:
        yield each.finding(
            f"{where}.metadata.host", f"{url.netloc} is not the broker's management API that KEDA may reach"
        )


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True
