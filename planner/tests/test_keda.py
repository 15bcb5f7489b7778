"""KEDA's metric and activation, with the cases of KEDA's RabbitMQ scaler and of its own end-to-end test."""

import pytest

from sluice_planner.cluster_settings import Cluster
from sluice_planner.keda import Counts, observe
from sluice_planner.keda_loop import KedaLoop
from sluice_planner.workload import Workload
from tests.overlays import outcome, trigger, workload


@pytest.mark.parametrize(
    ("metadata", "counts", "metric", "active"),
    [
        # ten messages, four of them unacked
        ({"protocol": "http"}, Counts(6, 4), 10.0, True),
        ({"protocol": "amqp"}, Counts(6, 4), 6.0, True),
        ({"excludeUnacknowledged": "true"}, Counts(6, 4), 6.0, True),
        ({"activationValue": "10"}, Counts(6, 4), 10.0, False),
        ({"activationValue": "9.5"}, Counts(6, 4), 10.0, True),
        ({}, Counts(0, 0), 0.0, False),
        ({"mode": "MessageRate"}, Counts(0, 0, publish_rate=2.5), 2.5, True),
        ({"mode": "MessageRate"}, Counts(1, 0), 0.0, True),  # active because of the message, although the rate is 0
        ({"mode": "MessageRate", "activationValue": "3"}, Counts(1, 0, publish_rate=2.5), 2.5, False),
        ({"mode": "DeliverGetRate"}, Counts(9, 0, deliver_rate=4), 4.0, True),
        ({"mode": "DeliverGetRate"}, Counts(9, 0), 0.0, False),
        ({"mode": "PublishedToDeliveredRatio"}, Counts(9, 0, 6, 4), 1.5, True),
        ({"mode": "PublishedToDeliveredRatio", "activationValue": "2"}, Counts(9, 0, 6, 0), 2.0, True),
        ({"mode": "PublishedToDeliveredRatio"}, Counts(9, 0, 0, 4), 0.0, False),
        ({"mode": "ExpectedQueueConsumptionTime"}, Counts(18, 2, 4, 2), 11.0, True),
        ({"mode": "ExpectedQueueConsumptionTime", "activationValue": "7"}, Counts(5, 0, 4, 0), 7.0, True),
        ({"mode": "ExpectedQueueConsumptionTime"}, Counts(0, 0, 4, 2), 0.0, False),
    ],
)
def test_metric_and_activation(metadata: dict[str, str], counts: Counts, metric: float, active: bool) -> None:
    (read,) = workload(triggers=trigger(**metadata)).scaler.triggers
    assert observe(read, counts) == (round(metric * 1000), active)


@pytest.mark.parametrize(
    ("metadata", "mode", "value"),
    [
        ({"mode": None, "value": None}, "QueueLength", 20.0),
        ({"mode": None, "value": None, "queueLength": "50"}, "QueueLength", 50.0),
        ({"mode": "MessageRate", "value": "2.5"}, "MessageRate", 2.5),
        ({"protocol": None, "host": "amqps://a:b@c/"}, "QueueLength", 10.0),
    ],
)
def test_trigger_defaults(metadata: dict[str, str | None], mode: str, value: float) -> None:
    (read,) = workload(triggers=trigger(**metadata)).scaler.triggers
    assert (read.mode, read.value) == (mode, value)


@pytest.fixture
def e2e() -> Workload:
    """The ScaledObject of KEDA's own end-to-end test: 0 to 4, value 10."""
    return workload(minReplicaCount=0, maxReplicaCount=4, triggers=trigger(value="10"))


def test_hundred_messages_scale_to_four_pods_and_back_to_none(e2e: Workload) -> None:
    found = outcome(e2e, "burst:100@10", "1")
    assert max(sample.ready for sample in found.samples) == 4
    assert found.samples[-1].desired == 0
    assert found.done == 100


def test_messages_below_the_activation_start_no_pod() -> None:
    asleep = workload(minReplicaCount=0, maxReplicaCount=4, triggers=trigger(activationValue="5"))
    found = outcome(asleep, "burst:3@10", "1", duration_s=300)
    assert found.events == []
    assert found.samples[-1].waiting == 3


def test_scaling_to_zero_waits_for_the_cooldown(e2e: Workload) -> None:
    found = outcome(e2e, "burst:1@10", "1")
    last = found.events[-1]
    assert (last.before, last.after) == (1, 0)
    assert "cooldownPeriod of 300 s" in last.reason
    # the messages are seen at 15 s and gone by 20 s; KEDA scales down at the first poll 300 s later
    assert 315 < last.at_s <= 335


def test_idle_replicas() -> None:
    idle = workload(minReplicaCount=3, idleReplicaCount=0, cooldownPeriod=30)
    found = outcome(idle, "burst:5@10", "1")
    assert [(event.before, event.after) for event in found.events if event.before != event.after] == [(0, 3), (3, 0)]


def test_idle_replicas_above_zero_conflict_with_the_hpa() -> None:
    """KEDA scales to 1, and the HPA raises that to its minimum, forever."""
    found = outcome(workload(minReplicaCount=3, idleReplicaCount=1), "burst:1", "1", duration_s=900)
    assert {(event.before, event.after) for event in found.events} >= {(1, 3), (3, 1)}


def failing(*_: object) -> None:
    """A broker that does not answer."""


def test_fallback_starts_with_the_failure_after_the_threshold() -> None:
    scaler = workload().scaler
    loop, (only,) = KedaLoop(scaler), scaler.triggers
    for at_s in (0, 5):
        loop.poll(at_s, failing, 1)
        assert loop._cache[only.name].milli is None  # noqa: SLF001 - a request of the HPA would count as a failure
    loop.poll(10, failing, 1)
    assert loop.answer(only, failing, 1).milli == 4 * 10 * 1000


@pytest.mark.parametrize(
    ("behavior", "replicas", "expected"),
    [
        ("static", 7, 4),
        ("currentReplicas", 7, 7),
        ("currentReplicasIfHigher", 7, 7),
        ("currentReplicasIfHigher", 2, 4),
        ("currentReplicasIfLower", 7, 4),
        ("currentReplicasIfLower", 2, 2),
    ],
)
def test_fallback_behaviors(behavior: str, replicas: int, expected: int) -> None:
    fallback = {"failureThreshold": 0, "replicas": 4, "behavior": behavior}
    loop = KedaLoop(workload(fallback=fallback).scaler)
    (only,) = loop._scaler.triggers  # noqa: SLF001
    assert loop.answer(only, failing, replicas).milli == expected * 10 * 1000


def test_unavailable_broker_triggers_the_fallback_only_over_http() -> None:
    away = Cluster(metrics_down_s=(30, 300), initial_replicas=1)
    http = outcome(workload(), "0.05/s", "5", duration_s=300, cluster=away)
    assert max(sample.desired for sample in http.samples) == 4
    amqp = outcome(workload(triggers=trigger(protocol="amqp")), "0.05/s", "5", duration_s=300, cluster=away)
    assert {sample.desired for sample in amqp.samples if sample.at_s > 30} == {amqp.samples[1].desired}
