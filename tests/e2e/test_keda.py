"""KEDA's RabbitMQ scaler computes the metric, the activation and the replicas that the planner predicts.

The cases are those of KEDA's own end-to-end test (tests/scalers/rabbitmq in its repository): a hundred messages at
value 10 need the maximum of 4 replicas; three messages, below an activation of 5, need none. The queue has no
consumers. The pods are never scheduled, because the tests look only at their number.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apps.contract.topology import PARKED_QUEUE
from ops import cluster
from ops.command import Unusable
from ops.management import Management
from sluice_planner import keda
from sluice_planner.fields import Field
from tests.e2e import objects
from tests.e2e.system import System, broker

pytestmark = pytest.mark.usefixtures("unmeasured")
NAMESPACE = "celery-workers"
IDLE = (NAMESPACE, "deployment", "idle")
QUEUE = f"/api/queues/%2F/{PARKED_QUEUE}"
VALUE, ACTIVATION, MAXIMUM = 10, 5, 4
# The management API may be 8 s late; then follow a poll of 2 s and a sync of the HPA, on a machine that may be busy.
TIMEOUT_S = 120
# Several polls: an active scaler would have added a replica by then.
HOLD_S = 20
RESTRICTED = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER = {
    "name": "idle",
    "image": "none:0",
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "idle", "namespace": NAMESPACE},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "idle"}},
        "template": {
            "metadata": {"labels": {"app": "idle"}},
            "spec": {"schedulerName": "none", "securityContext": RESTRICTED, "containers": [CONTAINER]},
        },
    },
}


def scaled_object(trigger: dict[str, Any]) -> dict[str, Any]:
    at_once = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "idle", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"name": "idle"},
            "pollingInterval": 2,
            "cooldownPeriod": 2,
            "minReplicaCount": 0,
            "maxReplicaCount": MAXIMUM,
            "advanced": {"horizontalPodAutoscalerConfig": at_once},
            "triggers": [trigger],
        },
    }


@pytest.fixture
def management(running: System) -> Iterator[Management]:  # noqa: ARG001 - deploys the broker and the TriggerAuthentication
    """The broker's management API; the queue is empty before and after the test."""
    with broker() as api:
        api(f"{QUEUE}/contents", "DELETE")
        yield api
        api(f"{QUEUE}/contents", "DELETE")


@pytest.fixture
def trigger(management: Management) -> Iterator[keda.Trigger]:  # noqa: ARG001 - empties the queue
    """The base's trigger with another queue and other numbers: KEDA has it, and the planner has read it."""
    written = objects.get(objects.SCALER)["spec"]["triggers"][0]
    written["metadata"] |= {"queueName": PARKED_QUEUE, "value": str(VALUE), "activationValue": str(ACTIVATION)}
    both = {"apiVersion": "v1", "kind": "List", "items": [DEPLOYMENT, scaled_object(written)]}
    cluster.ask("apply", "--filename=-", text=json.dumps(both))
    try:
        yield keda.trigger(Field(written, "the test's trigger"), 0)
    finally:
        cluster.ask("delete", "scaledobject/idle", "deployment/idle", f"--namespace={NAMESPACE}", "--ignore-not-found")


def metric_milli() -> int | None:
    """Return the metric that KEDA gives the HPA, in thousandths; None while there is none."""
    names = objects.get((NAMESPACE, "scaledobject", "idle")).get("status", {}).get("externalMetricNames")
    if not names:
        return None
    selector = "labelSelector=scaledobject.keda.sh%2Fname%3Didle"
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{names[0]}?{selector}"
    try:
        value = str(json.loads(cluster.ask("get", f"--raw={path}"))["items"][0]["value"])
    except (Unusable, IndexError):
        return None
    return int(value[:-1]) if value.endswith("m") else int(value) * 1000


def publish(management: Management, count: int) -> None:
    message = {"routing_key": PARKED_QUEUE, "payload": "x", "payload_encoding": "string", "properties": {}}
    for _ in range(count):
        management("/api/exchanges/%2F/amq.default/publish", "POST", message)


def test_keda_scales_as_the_planner_predicts(management: Management, trigger: keda.Trigger) -> None:
    publish(management, ACTIVATION - 2)
    metric, active = keda.observe(trigger, keda.Counts(ready=ACTIVATION - 2, unacked=0))
    objects.until(lambda: metric_milli() == metric, TIMEOUT_S, f"a metric of {metric} thousandths")
    assert not active
    end_s = time.monotonic() + HOLD_S
    objects.until(
        lambda: objects.replicas(IDLE)[1] > 0 or time.monotonic() > end_s, HOLD_S + TIMEOUT_S, "the hold time"
    )
    assert objects.replicas(IDLE)[1] == 0

    publish(management, 100 - (ACTIVATION - 2))
    metric, active = keda.observe(trigger, keda.Counts(ready=100, unacked=0))
    assert active
    objects.until(lambda: metric_milli() == metric, TIMEOUT_S, f"a metric of {metric} thousandths")
    objects.until(lambda: objects.replicas(IDLE)[1] == MAXIMUM, TIMEOUT_S, f"{MAXIMUM} replicas")

    management(f"{QUEUE}/contents", "DELETE")
    assert keda.observe(trigger, keda.Counts(0, 0)) == (0, False)
    objects.until(lambda: objects.replicas(IDLE)[1] == 0, TIMEOUT_S, "no replicas")
