"""Reads workloads from Kubernetes objects: each ScaledObject with the Deployment that it scales."""

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sluice_planner import hpa_spec, keda
from sluice_planner.fields import Field, Wrong
from sluice_planner.hpa_controller import DOWN_DEFAULT, UP_DEFAULT, Behavior
from sluice_planner.kubernetes_objects import Object
from sluice_planner.quantity import quantity
from sluice_planner.workload import SLOTS_MAX, Fallback, Pod, Scaler, Workload

REPLICAS_MAX = 10_000
CONCURRENCY_NAMES = ("WORKER_CONCURRENCY", "CELERY_WORKER_CONCURRENCY", "CELERYD_CONCURRENCY", "CELERY_CONCURRENCY")
PREFETCH_NAMES = (
    "WORKER_PREFETCH", "WORKER_PREFETCH_MULTIPLIER", "CELERY_WORKER_PREFETCH_MULTIPLIER", "CELERYD_PREFETCH_MULTIPLIER",
)  # fmt: skip
_KEDA = "autoscaling.keda.sh/"
_FALLBACKS = ("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")


@dataclass(frozen=True)
class Reading:
    """Options that complete or override the manifests."""

    concurrency: int | None = None
    prefetch: int | None = None
    prefetch_waits: bool = False
    protocol: keda.Protocol | None = None
    skipped_triggers: tuple[str, ...] = ()


def workloads(objects: Collection[Object], reading: Reading) -> list[Workload]:
    """The workload of every ScaledObject. Raises Wrong if there is none, or if one cannot be simulated."""
    scaled = [each for each in objects if each.kind == "ScaledObject"]
    if not scaled:
        source = next(iter(objects)).source
        raise Wrong(f"{source}: has no ScaledObject")
    found = [_workload(each, objects, reading) for each in scaled]
    owners: dict[str, str] = {}
    for each in found:
        for queue in each.queues:
            if queue in owners:
                raise Wrong(f"{each.where}: spec.triggers: {owners[queue]} consumes the queue {queue} too")
            owners[queue] = each.name
    return found


def deployment_of(scaled: Object, objects: Collection[Object]) -> Object | None:
    """The Deployment that a ScaledObject names; None if it is not among the objects."""
    name = scaled.field.get("spec").get("scaleTargetRef").get("name").text()
    return next((each for each in scaled.beside(objects, "Deployment") if each.name == name), None)


def _workload(scaled: Object, objects: Collection[Object], reading: Reading) -> Workload:
    spec = scaled.field.get("spec")
    target = spec.get("scaleTargetRef")
    target.get("kind").default("Deployment").text({"Deployment"})
    deployment = deployment_of(scaled, objects)
    if deployment is None:
        raise target.get("name").wrong(f"there is no Deployment {scaled.place(target.get('name').value)}")
    scaler = _scaler(scaled, reading)
    pod, assumed = _pod(deployment, objects, reading)
    if scaler.maximum * pod.concurrency > SLOTS_MAX:
        raise spec.get("maxReplicaCount").wrong(f"{scaler.maximum} pods of {pod.concurrency} tasks are too many")
    return Workload(scaled.name, scaled.field.where, scaler, pod, assumed)


def _scaler(scaled: Object, reading: Reading) -> Scaler:
    spec = scaled.field.get("spec")
    _unpaused(scaled)
    minimum = spec.get("minReplicaCount").default(0).integer(0, REPLICAS_MAX)
    maximum = spec.get("maxReplicaCount").default(100).integer(1, REPLICAS_MAX)
    if max(minimum, 1) > maximum:
        raise spec.get("maxReplicaCount").wrong(f"must not be below minReplicaCount, {minimum}")
    idle = spec.get("idleReplicaCount")
    if idle.value is not None and idle.integer() >= minimum:
        raise idle.wrong(f"must be below minReplicaCount, {minimum}")
    advanced = spec.get("advanced").default({})
    if advanced.get("scalingModifiers").value:
        raise advanced.get("scalingModifiers").wrong("formulas cannot be simulated")
    behavior = advanced.get("horizontalPodAutoscalerConfig").default({}).get("behavior")
    return Scaler(
        minimum=minimum,
        maximum=maximum,
        idle=None if idle.value is None else idle.integer(),
        poll_s=spec.get("pollingInterval").default(30).integer(1),
        cooldown_s=spec.get("cooldownPeriod").default(300).integer(),
        initial_cooldown_s=spec.get("initialCooldownPeriod").default(0).integer(),
        fallback=_fallback(spec.get("fallback")),
        behavior=_paused_directions(scaled, hpa_spec.behavior(behavior)),
        triggers=_triggers(spec.get("triggers"), reading),
    )


def _triggers(field: Field, reading: Reading) -> tuple[keda.Trigger, ...]:
    triggers = []
    for number, entry in enumerate(field.items()):
        kind = entry.get("type").text()
        if kind in reading.skipped_triggers:
            continue
        if kind != "rabbitmq":
            raise entry.get("type").wrong(
                f"{kind} cannot be simulated, only rabbitmq: --skip-trigger {kind} leaves it out"
            )
        triggers.append(keda.trigger(entry, number, reading.protocol))
    if not triggers:
        raise field.wrong("has no trigger of type rabbitmq")
    return tuple(triggers)


def _fallback(field: Field) -> Fallback | None:
    if field.value is None:
        return None
    return Fallback(
        failures=field.get("failureThreshold").integer(),
        replicas=field.get("replicas").integer(0, REPLICAS_MAX),
        behavior=field.get("behavior").default("static").text(_FALLBACKS),  # type: ignore[arg-type]  # one of them
    )


def _unpaused(scaled: Object) -> None:
    annotations = scaled.field.get("metadata").get("annotations")
    for name in ("paused", "paused-replicas", "force-activation"):
        value = scaled.annotation(_KEDA + name)
        if value is not None and value.lower() not in {"false", "f", "0"}:
            raise annotations.get(_KEDA + name).wrong("stops scaling by load: remove it first")


def _paused_directions(scaled: Object, behavior: Behavior | None) -> Behavior | None:
    """KEDA disables a paused direction in the HPA's behavior, so that the HPA leaves the legacy algorithm."""
    for name, side, default in (("paused-scale-in", "down", DOWN_DEFAULT), ("paused-scale-out", "up", UP_DEFAULT)):
        value = scaled.annotation(_KEDA + name)
        if value is not None and value.lower() not in {"false", "f", "0"}:
            rules = getattr(behavior, side) if behavior else default
            disabled: Any = {side: replace(rules, select="Disabled")}
            behavior = replace(behavior or Behavior(), **disabled)
    return behavior


def _pod(deployment: Object, objects: Collection[Object], reading: Reading) -> tuple[Pod, tuple[str, ...]]:
    template = deployment.field.get("spec").get("template").get("spec")
    containers = list(template.get("containers").items())
    if not containers:
        raise template.get("containers").wrong("has no container")
    assumed = []
    concurrency = reading.concurrency or _setting(containers, objects, deployment, _CONCURRENCY, CONCURRENCY_NAMES)
    if concurrency is None:
        assumed.append("one task at a time per pod: the Deployment does not set it (--concurrency)")
    prefetch = reading.prefetch or _setting(containers, objects, deployment, _PREFETCH, PREFETCH_NAMES)
    if prefetch is None:
        assumed.append("no message is prefetched: the Deployment does not set it (--prefetch-multiplier)")
    pod = Pod(
        concurrency=concurrency or 1,
        prefetch=prefetch or 1,
        prefetch_waits=reading.prefetch_waits,
        cpu=_requests(containers, "cpu"),
        memory=_requests(containers, "memory"),
        grace_s=template.get("terminationGracePeriodSeconds").default(30).integer(),
    )
    return pod, tuple(assumed)


_CONCURRENCY = re.compile(r"(?:--concurrency|-c)(?:[= ]|(?<=-c))(\d+)")
_PREFETCH = re.compile(r"--prefetch-multiplier[= ](\d+)")


def _setting(
    containers: list[Field],
    objects: Collection[Object],
    deployment: Object,
    option: re.Pattern[str],
    names: Collection[str],
) -> int | None:
    """A worker's setting: from a container's command line, else from its environment."""
    for container in containers:
        # the script of `sh -c` is one argument
        line = " ".join(word for part in command_line(container) for word in _words(part))
        if match := re.search(rf"(?:^| ){option.pattern}(?: |$)", line):
            return Field(int(match[1]), container.where, f"{container.path}.args").integer(1, SLOTS_MAX)
        for name, value in _environment(container, objects, deployment):
            if name in names and value is not None:
                field = Field(value, container.where, f"{container.path}.env[{name}]")
                if not re.fullmatch(r"\d+", str(value)):
                    raise field.wrong(f"must be a number, not {value!r}")
                return replace(field, value=int(value)).integer(1, SLOTS_MAX)
    return None


def command_line(container: Field) -> list[str]:
    """A container's command and arguments."""
    parts = (container.get(name).default([]).items() for name in ("command", "args"))
    return [str(word.value) for part in parts for word in part]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _environment(container: Field, objects: Collection[Object], deployment: Object) -> Iterator[tuple[str, str | None]]:
    """Names and values of `env`, and of the ConfigMaps in `envFrom`."""
    for entry in container.get("env").default([]).items():
        yield entry.get("name").text(), entry.get("value").value
    for entry in container.get("envFrom").default([]).items():
        name = entry.get("configMapRef").default({}).get("name").value
        for each in deployment.beside(objects, "ConfigMap"):
            if each.name == name:
                yield from each.field.get("data").default({}).mapping().items()


def _requests(containers: list[Field], resource: str) -> Fraction:
    """The sum of the containers' requests; a limit without a request counts as one."""
    total = Fraction(0)
    for container in containers:
        resources = container.get("resources").default({})
        request, limit = (resources.get(kind).default({}).get(resource) for kind in ("requests", "limits"))
        if request.value is not None or limit.value is not None:
            total += quantity(request if request.value is not None else limit)
    return total
