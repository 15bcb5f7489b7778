"""KEDA's RabbitMQ scaler (2.21): the metric that the HPA gets for a queue, and whether the trigger is active.

The rules for the trigger's fields are the scaler's own: a trigger that it refuses is refused here, too.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from sluice_planner.fields import Field

Protocol = Literal["http", "amqp"]
Mode = Literal[
    "QueueLength", "MessageRate", "DeliverGetRate", "PublishedToDeliveredRatio", "ExpectedQueueConsumptionTime"
]
MODES = ("QueueLength", "MessageRate", "DeliverGetRate", "PublishedToDeliveredRatio", "ExpectedQueueConsumptionTime")
PROTOCOLS = {"http": "http", "https": "http", "amqp": "amqp", "amqps": "amqp"}
DEFAULT_VALUE = 20.0


class Counts(NamedTuple):
    """A queue's messages as the broker reports them. Rates are in messages per second."""

    ready: int
    unacked: int
    publish_rate: float = 0.0
    deliver_rate: float = 0.0


@dataclass(frozen=True)
class Trigger:
    """The fields of a trigger of type rabbitmq that influence scaling."""

    name: str
    queue: str
    mode: Mode
    value: float
    activation: float
    protocol: Protocol
    ready_only: bool
    cached: bool

    @property
    def target_milli(self) -> int:
        """The HPA's AverageValue in thousandths; KEDA truncates it to that."""
        return int(self.value * 1000)


def observe(trigger: Trigger, counts: Counts) -> tuple[int, bool]:
    """The metric in thousandths, and whether the trigger is active."""
    messages = counts.ready if trigger.ready_only else counts.ready + counts.unacked
    published, delivered, activation = counts.publish_rate, counts.deliver_rate, trigger.activation
    if trigger.mode == "QueueLength":
        metric, active = float(messages), messages > activation
    elif trigger.mode == "MessageRate":
        metric, active = published, published > activation or messages > activation
    elif trigger.mode == "DeliverGetRate":
        metric, active = delivered, delivered > activation
    elif trigger.mode == "PublishedToDeliveredRatio":
        stuck = published > 0 and delivered == 0
        metric = activation if stuck else published / delivered if published > 0 else 0.0
        active = metric > activation or stuck
    else:
        stuck = messages > 0 and delivered == 0
        metric = 0.0 if messages == 0 else activation if stuck else (published - delivered + messages) / delivered
        active = metric > activation or stuck
    return int(metric * 1000), active


def trigger(field: Field, number: int, unknown_protocol: Protocol | None = None) -> Trigger:
    """Read an entry of `spec.triggers` whose type is rabbitmq.

    `unknown_protocol` is used for a trigger that names no protocol and whose host is in a Secret.
    """
    metadata = field.get("metadata")
    for name in metadata.mapping():
        if not isinstance(metadata.get(name).value, str):
            raise metadata.get(name).wrong(f"must be a quoted text, not {metadata.get(name).value!r}")
    if field.get("metricType").default("AverageValue").text() != "AverageValue":
        raise field.get("metricType").wrong("only AverageValue, the default, can be simulated")
    if _boolean(metadata.get("useRegex")):
        raise metadata.get("useRegex").wrong("queues by regular expression cannot be simulated: name one queue")
    queue = metadata.get("queueName").text()
    protocol = _protocol(metadata, unknown_protocol)
    mode, value = _mode(metadata)
    if mode != "QueueLength" and protocol != "http":
        raise metadata.get("mode").wrong(f"{mode} needs protocol http, not {protocol}")
    ready_only = _boolean(metadata.get("excludeUnacknowledged"))
    if ready_only and protocol != "http":
        raise metadata.get("excludeUnacknowledged").wrong(f"needs protocol http, not {protocol}")
    return Trigger(
        name=field.get("name").default(f"s{number}-{queue}").text(),
        queue=queue,
        mode=mode,
        value=value,
        activation=_number(metadata.get("activationValue")),
        protocol=protocol,
        ready_only=ready_only or protocol == "amqp",  # AMQP shows only what is ready
        cached=field.get("useCachedMetrics").default(False).value is True,  # noqa: FBT003 - the field's default
    )


def _mode(metadata: Field) -> tuple[Mode, float]:
    """Mode and value by the scaler's rules: as given, from the old queueLength, or QueueLength 20 as the default."""
    length, value = _number(metadata.get("queueLength")), _number(metadata.get("value"))
    mode = metadata.get("mode").default("Unknown").text()
    if length and (mode != "Unknown" or value):
        raise metadata.get("queueLength").wrong("KEDA refuses it together with mode or value: remove it")
    if not length and not value and mode == "Unknown":
        return "QueueLength", DEFAULT_VALUE
    if length:
        mode, value = "QueueLength", length
    metadata.get("mode").default(mode if mode != "Unknown" else None).text(MODES)
    field = metadata.get("queueLength" if length else "value")
    if value < 0.001:  # noqa: PLR2004 - the HPA counts in thousandths
        raise field.wrong(f"must be at least 0.001, not {field.value or 'missing'}")
    return mode, value  # type: ignore[return-value]  # one of MODES, as just checked


def _protocol(metadata: Field, unknown: Protocol | None) -> Protocol:
    named = metadata.get("protocol").default("auto").text({"http", "amqp", "auto"})
    if named != "auto":
        return named  # type: ignore[return-value]  # one of the two that are left
    host = metadata.get("host")
    if host.value is None:
        if unknown is None:
            raise metadata.get("protocol").wrong(
                "is auto, and the manifest has no host: set the protocol, or use --protocol"
            )
        return unknown
    scheme = urlsplit(host.text()).scheme
    if scheme not in PROTOCOLS:
        raise host.wrong(f"must start with http(s):// or amqp(s):// unless protocol is set, not with {scheme!r}")
    return PROTOCOLS[scheme]  # type: ignore[return-value]  # one of the two


def _number(field: Field) -> float:
    """A quoted number; 0 if it is missing, as in the scaler."""
    if field.value is None:
        return 0.0
    try:
        number = float(field.text())
    except ValueError:
        raise field.wrong(f"must be a number, not {field.value!r}") from None
    return Field(number, field.where, field.path).number(0, 1e12)


def _boolean(field: Field) -> bool:
    if field.value is None:
        return False
    return field.text({"true", "false", "True", "False", "TRUE", "FALSE", "1", "0", "t", "f"}).lower() in {
        "true",
        "t",
        "1",
    }
