"""KEDA cannot reach RabbitMQ: it sets the fallback's replicas, and returns to the metric afterwards."""

from tests.e2e import objects
from tests.e2e.system import System

FALLBACK_TIMEOUT_S = 180
RECOVERY_TIMEOUT_S = 300
# the base's number, repeated here so that a change needs a decision
REPLICAS = 4
TASKS = 20


def falls_back() -> bool:
    """Whether the ScaledObject reports that its fallback is active."""
    conditions = objects.get(objects.SCALER)["status"]["conditions"]
    return any(each["type"] == "Fallback" and each["status"] == "True" for each in conditions)


def test_fallback_sets_its_replicas_and_ends_when_rabbitmq_is_back(load: System) -> None:
    assert objects.replicas(objects.WORKER)[1] < REPLICAS
    objects.scale(objects.RABBITMQ, 0)
    try:
        objects.until(falls_back, FALLBACK_TIMEOUT_S, "the fallback")
        objects.until(
            lambda: objects.replicas(objects.WORKER)[1] == REPLICAS, FALLBACK_TIMEOUT_S, f"{REPLICAS} replicas"
        )
    finally:
        objects.scale(objects.RABBITMQ, 1)
    objects.rolled_out(objects.RABBITMQ)
    objects.until(lambda: not falls_back(), RECOVERY_TIMEOUT_S, "the end of the fallback")
    objects.settled(objects.WORKER, 2, RECOVERY_TIMEOUT_S)

    ids = load.post([f"after-{number}" for number in range(TASKS)])
    assert load.states(ids, RECOVERY_TIMEOUT_S) == {"SUCCESS"}
