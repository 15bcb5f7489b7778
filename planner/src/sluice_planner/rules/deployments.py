"""Rules about the scaled Deployment."""

import re
from collections.abc import Iterator

from sluice_planner.fields import Field
from sluice_planner.manifests import PREFETCH_NAMES, command_line
from sluice_planner.rules.registry import Problem, Scaled, others, rule, text, words
from sluice_planner.rules.triggers import protocol

DEFAULT_GRACE_S = 30
# Celery's default
DEFAULT_PREFETCH = 4


@rule(301, "error", "nothing to scale on")
def no_target(scaled: Scaled) -> Iterator[Problem]:
    target = scaled.spec.get("scaleTargetRef")
    ours = target.get("kind").default("Deployment").value == "Deployment"
    if ours and scaled.deployment is None:
        message = f"there is no Deployment {scaled.object.place(target.get('name').value)} beside it"
        yield target.get("name"), message, "check the name: Kustomize's name prefixes do not change this reference"


@rule(302, "warning", "replicas on a scaled Deployment")
def replicas(scaled: Scaled) -> Iterator[Problem]:
    if scaled.deployment is not None:
        field = scaled.deployment.field.get("spec").get("replicas")
        if field.value is not None:
            message = f"each apply resets the replicas to {field.value}, even during a burst"
            yield field, message, "remove it: KEDA sets the replicas"


@rule(303, "error", "two owners of one number")
def two_owners(scaled: Scaled) -> Iterator[Problem]:
    target = scaled.spec.get("scaleTargetRef").get("name")
    for kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        for each in others(scaled, kind):
            same = each.field.get("spec").get("scaleTargetRef").get("name").value == target.value
            if same and each.title != scaled.object.title:
                yield target, f"{each.title} also scales it, and KEDA refuses that", "remove one of them"


@rule(304, "warning", "the default grace period")
def default_grace(scaled: Scaled) -> Iterator[Problem]:
    if scaled.template is not None and scaled.rabbitmq:
        field = scaled.template.get("terminationGracePeriodSeconds")
        if field.value is None:
            message = f"each scale-down kills tasks that need more than {DEFAULT_GRACE_S} s to end"
            yield field, message, "set it above the longest task"


@rule(305, "warning", "a grace period below the task limit")
def short_grace(scaled: Scaled) -> Iterator[Problem]:
    if scaled.template is None:
        return
    field = scaled.template.get("terminationGracePeriodSeconds")
    limit_s = scaled.assumed.task_limit_s
    if limit_s is None:
        limit_s = max((_limit_s(container) for container in scaled.containers), default=0.0)
    if limit_s and field.default(DEFAULT_GRACE_S).integer() <= limit_s:
        message = (
            f"tasks may run {limit_s:g} s, and a scale-down kills them after {field.default(DEFAULT_GRACE_S).value} s"
        )
        yield field, message, "set it above the limit"


@rule(306, "error", "a CPU or memory trigger without requests")
def no_requests(scaled: Scaled) -> Iterator[Problem]:
    wanted = {text(each.get("type")) for each in scaled.triggers} & {"cpu", "memory"}
    for resource in sorted(wanted):
        for container in scaled.containers:
            resources = container.get("resources").default({})
            given = [resources.get(kind).default({}).get(resource).value for kind in ("requests", "limits")]
            if given == [None, None]:
                field = resources.get("requests").default({}).get(resource)
                yield field, f"KEDA refuses the {resource} trigger: it is a share of the request", "set a request"


@rule(307, "warning", "prefetched messages that are not counted")
def prefetch(scaled: Scaled) -> Iterator[Problem]:
    ready_only = [
        each
        for each in scaled.rabbitmq
        if protocol(each) == "amqp" or text(each.get("excludeUnacknowledged")).lower() == "true"
    ]
    for container in scaled.containers:
        line = words(container)
        entries = container.get("env").default([]).items()
        named = [text(entry.get("value")) for entry in entries if text(entry.get("name")) in PREFETCH_NAMES]
        said = re.findall(r"--prefetch-multiplier[= ](\d+)", " ".join(line)) + list(filter(str.isdecimal, named))
        multiplier = int(said[0]) if said else DEFAULT_PREFETCH if "celery" in line else 1
        if multiplier > 1:
            for each in ready_only:
                field = each.get("protocol" if protocol(each) == "amqp" else "excludeUnacknowledged")
                message = f"each task slot removes up to {multiplier} messages from this count: busy pods look idle"
                yield field, message, "use --prefetch-multiplier=1, or count unacked messages (protocol: http)"


@rule(308, "warning", "a shell that swallows SIGTERM")
def shell_without_exec(scaled: Scaled) -> Iterator[Problem]:
    for container in scaled.containers:
        line = command_line(container)
        shell = len(line) > 2 and line[0].rpartition("/")[2] in {"sh", "bash"} and line[1] == "-c"  # noqa: PLR2004
        if shell and re.search(r"\bcelery\b", line[2]) and not re.search(r"\bexec\b", line[2]):
            field = container.get("command" if container.get("command").value else "args")
            message = "the shell is PID 1 and does not forward SIGTERM: each scale-down kills the running tasks"
            yield field, message, "start the worker with exec"


def _limit_s(container: Field) -> float:
    """The time limit in Celery's `--time-limit` or in an environment variable; 0 if there is none."""
    line = " ".join(words(container))
    limits = [float(found) for found in re.findall(r"--(?:soft-)?time-limit[= ](\d+(?:\.\d+)?)", line)]
    for entry in container.get("env").default([]).items():
        value = text(entry.get("value"))
        if re.search(r"TASK_(?:SOFT_)?TIME_LIMIT|SOFT_SHUTDOWN", text(entry.get("name"))) and re.fullmatch(
            r"[\d.]+", value
        ):
            limits.append(float(value))
    return max(limits, default=0.0)
