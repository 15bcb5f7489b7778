"""Rules about the numbers of replicas and the steps between them."""

from collections.abc import Iterator

from sluice_planner import hpa_spec
from sluice_planner.durations import shown
from sluice_planner.hpa_controller import INT32_MAX, NS_PER_S, Memory, Rules, Seen, Settings, step
from sluice_planner.rules.registry import Problem, Scaled, number, rule, text, words

# the longest acceptable time from the minimum to the maximum
SLOWEST_S = 1800
DEFAULT_WINDOW_S = 300


@rule(101, "warning", "pollingInterval without effect")
def poll_without_effect(scaled: Scaled) -> Iterator[Problem]:
    field = scaled.spec.get("pollingInterval")
    cached = any(each.get("useCachedMetrics").value is True for each in scaled.triggers)
    if (
        field.value is not None
        and scaled.minimum > 0
        and scaled.spec.get("idleReplicaCount").value is None
        and not cached
    ):
        yield (
            field,
            "has no effect: above 0 replicas each sync of the HPA (15 s) asks the broker itself",
            "set useCachedMetrics: true on the triggers, or remove it",
        )


@rule(102, "warning", "cooldownPeriod without effect")
def cooldown_without_effect(scaled: Scaled) -> Iterator[Problem]:
    field = scaled.spec.get("cooldownPeriod")
    if field.value is not None and scaled.minimum > 0 and scaled.spec.get("idleReplicaCount").value is None:
        yield (
            field,
            f"has no effect: it delays only the step to 0, which minReplicaCount {scaled.minimum} excludes",
            "set scaleDown.stabilizationWindowSeconds in the behavior instead",
        )


@rule(103, "warning", "no behavior")
def no_behavior(scaled: Scaled) -> Iterator[Problem]:
    if scaled.behavior.value is None:
        yield (
            scaled.behavior,
            "the HPA uses its legacy algorithm: up by doubling (or to 4), down to the minimum in one step after 300 s",
            "set a behavior; even `behavior: {scaleUp: {}}` selects the current defaults",
        )


@rule(104, "error", "bounds that KEDA refuses")
def bounds(scaled: Scaled) -> Iterator[Problem]:
    if max(scaled.minimum, 1) > scaled.maximum:
        field = scaled.spec.get("maxReplicaCount")
        yield field, f"KEDA refuses it: below minReplicaCount, {scaled.minimum}", "raise it"
    idle = scaled.spec.get("idleReplicaCount")
    if idle.value is not None and idle.integer() >= scaled.minimum:
        yield idle, f"KEDA refuses it: not below minReplicaCount, {scaled.minimum}", "lower it, or raise the minimum"


@rule(105, "warning", "idleReplicaCount above 0")
def idle_above_zero(scaled: Scaled) -> Iterator[Problem]:
    idle = scaled.spec.get("idleReplicaCount")
    if idle.value is not None and 0 < idle.integer() < scaled.minimum:
        message = f"KEDA scales to {idle.value}, the HPA back to its minimum {scaled.minimum}, in an endless loop"
        yield idle, message, "set it to 0"


@rule(106, "warning", "nothing to scale")
def nothing_to_scale(scaled: Scaled) -> Iterator[Problem]:
    if scaled.minimum == scaled.maximum:
        yield scaled.spec.get("maxReplicaCount"), "equals the minimum: nothing is ever scaled", "raise it"


@rule(107, "warning", "maximum out of reach")
def maximum_out_of_reach(scaled: Scaled) -> Iterator[Problem]:
    """The last pod starts only when there are more than value x (max - 1) messages."""
    limit = scaled.assumed.queue_max_length
    for each in scaled.rabbitmq:
        field = each.get("value" if each.get("value").value is not None else "queueLength")
        needed = number(field) * (scaled.maximum - 1)
        if text(each.get("mode")) in {"", "QueueLength"} and needed >= limit:
            message = f"{scaled.maximum} replicas need over {needed:,.0f} messages, but the queue can hold {limit:,}"
            yield field, message, "lower it, or set the capacity of the queue (--queue-max-length)"


@rule(108, "warning", "a policy whose number is too large")
def policy_overflow(scaled: Scaled) -> Iterator[Problem]:
    for side in ("scaleUp", "scaleDown"):
        for policy in scaled.behavior.default({}).get(side).default({}).get("policies").default([]).items():
            if policy.get("type").value == "Pods" and policy.get("value").integer() > INT32_MAX - scaled.maximum:
                message = "the HPA adds it to the replicas in 32 bits, which overflows: nothing is scaled"
                yield policy.get("value"), message, f"{scaled.maximum} has the effect of no limit"


@rule(109, "warning", "slow to the maximum")
def slow_to_maximum(scaled: Scaled) -> Iterator[Problem]:
    """Simulates the HPA's steps under an unlimited load."""
    behavior = hpa_spec.behavior(scaled.behavior)
    if behavior is None or scaled.maximum < max(scaled.minimum, 1):
        return
    settings = Settings(max(scaled.minimum, 1), scaled.maximum, (1,), behavior)
    replicas, memory, now_s = settings.minimum, Memory(), 0
    while now_s < SLOWEST_S and replicas < settings.maximum:
        now_s += 15
        decision, memory = step(settings, memory, Seen(now_s * NS_PER_S, replicas, replicas, [INT32_MAX]))
        replicas = decision.replicas
    if replicas < settings.maximum:
        yield (
            scaled.behavior.get("scaleUp"),
            f"after {shown(SLOWEST_S)} of unlimited load the HPA has reached {replicas} of {settings.maximum} replicas",
            "allow more in its policies",
        )


@rule(110, "warning", "never down again")
def never_down(scaled: Scaled) -> Iterator[Problem]:
    down = scaled.behavior.default({}).get("scaleDown").default({})
    if down.get("selectPolicy").value == "Disabled":
        yield (
            down.get("selectPolicy"),
            "the replicas that a burst added are never removed",
            "use a long window and small policies",
        )


@rule(111, "warning", "down in one step")
def down_in_one_step(scaled: Scaled) -> Iterator[Problem]:
    """The default policy, 100% within 15 s, seldom suits a queue."""
    behavior = hpa_spec.behavior(scaled.behavior)
    if behavior is None or scaled.maximum - scaled.minimum < 2:  # noqa: PLR2004 - one step is all there is
        return
    window_s = DEFAULT_WINDOW_S if behavior.down.window_s is None else behavior.down.window_s
    if window_s == 0 and _all_at_once(behavior.down):
        field = scaled.behavior.get("scaleDown")
        message = (
            "if the queue is empty at one sync, all pods above the minimum are removed, and their tasks are interrupted"
        )
        yield field, message, "set stabilizationWindowSeconds, or a policy below 100%"


@rule(112, "warning", "paused")
def paused(scaled: Scaled) -> Iterator[Problem]:
    annotations = scaled.object.field.get("metadata").get("annotations").default({})
    for name in ("paused", "paused-replicas", "paused-scale-in", "paused-scale-out"):
        field = annotations.get(f"autoscaling.keda.sh/{name}")
        if field.value is not None and str(field.value).lower() not in {"false", "f", "0"}:
            deletes = name in {"paused", "paused-replicas"}
            what = "KEDA deletes the HPA, and nothing scales" if deletes else "one direction is switched off"
            yield field, f"{what} while it is set", "remove it once its reason is gone"


@rule(113, "warning", "scale to zero and delayed tasks")
def zero_and_delayed(scaled: Scaled) -> Iterator[Problem]:
    """KEDA does not count the retries and countdowns that wait in a worker."""
    celery = any("celery" in words(container) for container in scaled.containers)
    if scaled.minimum == 0 and scaled.rabbitmq and celery:
        unset = "" if scaled.spec.get("minReplicaCount").value is not None else " (the default)"
        yield (
            scaled.spec.get("minReplicaCount"),
            f"at 0{unset} retries and countdown tasks, which wait in other queues or in a worker, start no pod",
            "set it to 1 if tasks are delayed",
        )


def _all_at_once(rules: Rules) -> bool:
    return rules.select == "Max" and any(each.kind == "Percent" and each.value >= 100 for each in rules.policies)  # noqa: PLR2004
