"""Rules about triggers and the fallback."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sluice_planner.fields import Field
from sluice_planner.keda import MODES
from sluice_planner.rules.registry import Problem, Scaled, number, others, rule, text, words

# the fields of a trigger's metadata that the scaler reads
KNOWN = {
    "queueName", "mode", "queueLength", "value", "activationValue", "host", "hostFromEnv", "protocol", "vhostName",
    "useRegex", "excludeUnacknowledged", "pageSize", "operation", "timeout", "username", "usernameFromEnv", "password",
    "passwordFromEnv", "unsafeSsl", "authModes",
}  # fmt: skip


@rule(201, "error", "a number that is not quoted")
def unquoted(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.triggers:
        metadata = each.get("metadata").default({})
        for name in metadata.mapping():
            if not isinstance(metadata.get(name).value, str):
                message = f"the API refuses it: {metadata.get(name).value!r} is not a string"
                yield metadata.get(name), message, f'write "{metadata.get(name).value}"'


@rule(202, "error", "queueLength with mode or value")
def queue_length_with_mode(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if text(each.get("queueLength")) and (text(each.get("mode")) or text(each.get("value"))):
            yield each.get("queueLength"), "KEDA refuses it together with mode or value", "remove it"


@rule(203, "warning", "queueLength is deprecated")
def queue_length(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if text(each.get("queueLength")) and not text(each.get("mode")) and not text(each.get("value")):
            fix = f'write mode: QueueLength and value: "{text(each.get("queueLength"))}"'
            yield each.get("queueLength"), "a later KEDA will refuse it", fix


@rule(204, "error", "no queue")
def no_queue(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if each.get("queueName").value in (None, ""):
            yield each.get("queueName"), "KEDA refuses a trigger without it", "name the queue"


@rule(205, "warning", "a queue that nobody consumes")
def queue_not_consumed(scaled: Scaled) -> Iterator[Problem]:
    consumed = {queue for container in scaled.containers for queue in _queues(words(container))}
    for each in scaled.rabbitmq:
        if consumed and text(each.get("queueName")) not in consumed and text(each.get("useRegex")) != "true":
            consumed_queues = ", ".join(sorted(consumed))
            message = f"the worker consumes only {consumed_queues}: this queue is never emptied, and holds replicas"
            yield each.get("queueName"), message, "use the queue that the worker consumes"


@rule(206, "warning", "a value that is left to KEDA")
def default_value(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if not any(text(each.get(name)) for name in ("mode", "value", "queueLength")):
            yield each.get("value"), "KEDA uses its default, QueueLength 20", "set mode and value"


@rule(207, "error", "a mode that KEDA refuses")
def mode(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        named = text(each.get("mode"))
        if named and named not in MODES:
            yield each.get("mode"), f"{named} is not one of {', '.join(MODES)}", "use one of them"
        if named in MODES and number(each.get("value")) <= 0:
            yield each.get("value"), "KEDA refuses a mode without a value above 0", "set a value"
        if text(each.get("value")) and not named:
            yield each.get("mode"), "KEDA refuses a value without a mode", "set mode: QueueLength"


@rule(208, "error", "only over HTTP")
def only_over_http(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if protocol(each) != "amqp":
            continue
        if text(each.get("mode")) in set(MODES) - {"QueueLength"}:
            yield each.get("mode"), "KEDA refuses it over AMQP, which has no rates", "use protocol: http"
        for name in ("useRegex", "excludeUnacknowledged"):
            if text(each.get(name)).lower() == "true":
                yield each.get(name), "KEDA refuses it over AMQP", "use protocol: http"


@rule(209, "warning", "AMQP with fallback")
def amqp_with_fallback(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if protocol(each) == "amqp" and scaled.spec.get("fallback").value is not None:
            message = "the fallback is never used: over AMQP KEDA cannot build the scaler while the broker is away"
            yield each.get("protocol"), message, "use protocol: http and the management API's port"


@rule(210, "note", "no fallback")
def no_fallback(scaled: Scaled) -> Iterator[Problem]:
    if scaled.spec.get("fallback").value is None and any(protocol(each) == "http" for each in scaled.rabbitmq):
        message = "while the broker does not answer, the replicas do not change, however long the queue is"
        yield scaled.spec.get("fallback"), message, "set the replicas to use without a metric"


@rule(211, "warning", "a fallback that comes and goes")
def fallback_with_cache(scaled: Scaled) -> Iterator[Problem]:
    """In KEDA 2.21 an answer from the cache resets the count of failures."""
    fallback = scaled.spec.get("fallback").default({}).get("failureThreshold")
    if fallback.value is None or not any(each.get("useCachedMetrics").value is True for each in scaled.triggers):
        return
    needed_s = (fallback.integer() + 1) * scaled.spec.get("pollingInterval").default(30).integer()
    if needed_s > scaled.assumed.sync_s:
        message = (
            f"it needs {needed_s} s of failed polls, but each sync of the HPA ({scaled.assumed.sync_s:g} s) that reads"
            " the fallback from the cache resets the count, so that the metric fails again"
        )
        yield fallback, message, "make (failureThreshold + 1) x pollingInterval at most the HPA's period"


@rule(212, "warning", "a fallback outside the bounds")
def fallback_outside(scaled: Scaled) -> Iterator[Problem]:
    replicas = scaled.spec.get("fallback").default({}).get("replicas")
    if replicas.value is not None and not scaled.minimum <= replicas.integer() <= scaled.maximum:
        message = f"the HPA keeps it between {max(scaled.minimum, 1)} and {scaled.maximum}"
        yield replicas, message, "use a number within the bounds"


@rule(213, "warning", "a credential in the manifest")
def credential(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if urlsplit(text(each.get("host"))).password or text(each.get("password")):
            field = each.get("password") if text(each.get("password")) else each.get("host")
            yield (
                field,
                "everyone who can read the manifest or the cluster's events has it",
                "use a TriggerAuthentication",
            )


@rule(214, "error", "a host that KEDA cannot use")
def host(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        scheme = urlsplit(text(each.get("host"))).scheme
        if scheme and scheme not in {"http", "https", "amqp", "amqps"}:
            message = (
                f"{scheme}:// is Celery's spelling, which KEDA does not know"
                if scheme == "pyamqp"
                else f"{scheme}:// is not a broker"
            )
            yield each.get("host"), message, "use amqp(s):// or http(s)://"
        named = text(each.get("protocol"))
        if scheme in {"http", "https"} and named == "amqp":
            yield each.get("host"), "is the management API, but the protocol is amqp", "change one of them"
        if scheme in {"amqp", "amqps"} and named == "http":
            yield each.get("host"), "is the broker itself, but the protocol is http", "change one of them"


@rule(215, "warning", "a misspelt field of a trigger")
def unknown_field(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        for name in sorted(set(each.mapping()) - KNOWN):
            yield each.get(name), "KEDA ignores it silently", f"use one of {', '.join(sorted(KNOWN))}"


@rule(216, "error", "an authentication that is not there")
def no_authentication(scaled: Scaled) -> Iterator[Problem]:
    """Kustomize's prefixes and hashes do not change references in KEDA's objects."""
    there = {each.name for each in others(scaled, "TriggerAuthentication")}
    for each in scaled.triggers:
        reference = each.get("authenticationRef").default({})
        kind = reference.get("kind").default("TriggerAuthentication").value
        name = text(reference.get("name"))
        if name and kind == "TriggerAuthentication" and name not in there:
            message = f"there is no TriggerAuthentication {scaled.object.place(name)} beside it"
            yield (
                reference.get("name"),
                message,
                "check the name: Kustomize's name prefixes do not change this reference",
            )


@rule(217, "warning", "activation above the value")
def activation(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.rabbitmq:
        if scaled.minimum == 0 and number(each.get("activationValue")) > number(each.get("value")) > 0:
            message = "at 0 replicas more than one pod's messages wait before the first pod starts"
            yield each.get("activationValue"), message, "set it below the value"
        if (
            scaled.minimum > 0
            and scaled.spec.get("idleReplicaCount").value is None
            and text(each.get("activationValue"))
        ):
            message = f"has no effect: it is for the step from 0, and minReplicaCount is {scaled.minimum}"
            yield each.get("activationValue"), message, "remove it"


@rule(218, "warning", "polls that are slower than the HPA")
def slow_polls(scaled: Scaled) -> Iterator[Problem]:
    field = scaled.spec.get("pollingInterval")
    cached = any(each.get("useCachedMetrics").value is True for each in scaled.triggers)
    if cached and field.default(30).integer() > scaled.assumed.sync_s:
        old = f"up to {field.default(30).value} s old"
        message = f"the HPA, each {scaled.assumed.sync_s:g} s, decides on a metric that is {old}"
        yield field, message, "set it to at most the HPA's period"


@rule(219, "error", "a cached metric that cannot be")
def cached_resource(scaled: Scaled) -> Iterator[Problem]:
    for each in scaled.triggers:
        if text(each.get("type")) in {"cpu", "memory", "cron"} and each.get("useCachedMetrics").value is True:
            yield each.get("useCachedMetrics"), f"KEDA refuses it on {each.get('type').value}", "remove it"


@rule(220, "error", "triggers of one name")
def same_name(scaled: Scaled) -> Iterator[Problem]:
    seen: set[str] = set()
    for each in scaled.triggers:
        name = text(each.get("name"))
        if name and name in seen:
            yield each.get("name"), "KEDA refuses a name that another trigger has", "give it a unique name"
        seen.add(name)


def protocol(metadata: Field) -> str:
    """Either http or amqp; empty if the host is in a Secret."""
    named = text(metadata.get("protocol"))
    if named in {"http", "amqp"}:
        return named
    return {"http": "http", "https": "http", "amqp": "amqp", "amqps": "amqp"}.get(
        urlsplit(text(metadata.get("host"))).scheme, ""
    )


def _queues(line: list[str]) -> set[str]:
    """Celery's `-Q a,b`."""
    match = re.search(r"(?:^| )(?:-Q|--queues)[= ](\S+)", " ".join(line))
    return set(match[1].split(",")) if match else set()
