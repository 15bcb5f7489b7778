"""A small overlay to change: one Deployment and its ScaledObject, as text and as workloads."""

from pathlib import Path
from typing import Any

import yaml

from sluice_planner import kubernetes_objects, manifests
from sluice_planner.arrivals import read
from sluice_planner.cluster_settings import Cluster
from sluice_planner.service_times import read as read_service
from sluice_planner.simulation import Outcome, simulate
from sluice_planner.traffic import Traffic
from sluice_planner.workload import Workload

OVERLAY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: work}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 60
      containers:
        - name: worker
          image: worker:1
          args: [celery, -A, app, worker, --concurrency=1, --prefetch-multiplier=1]
          resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {memory: 1Gi}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: scaler, namespace: work}
spec:
  scaleTargetRef: {name: worker}
  pollingInterval: 5
  minReplicaCount: 1
  maxReplicaCount: 10
  fallback: {failureThreshold: 2, replicas: 4}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
  triggers:
    - type: rabbitmq
      useCachedMetrics: true
      metadata:
        protocol: http
        host: http://rabbitmq:15672/
        mode: QueueLength
        queueName: jobs
        value: "10"
      authenticationRef: {name: keda}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: keda, namespace: work}
"""


def objects(text: str = OVERLAY, **spec: Any) -> list[kubernetes_objects.Object]:
    """The overlay's objects, with fields of the ScaledObject's spec replaced (None: removed)."""
    bodies = list(yaml.safe_load_all(text))
    for body in bodies:
        if body["kind"] == "ScaledObject":
            body["spec"] |= spec
            body["spec"] = {name: value for name, value in body["spec"].items() if value is not None}
    return [kubernetes_objects.Object("overlay.yaml", body) for body in bodies]


def workload(text: str = OVERLAY, **spec: Any) -> Workload:
    (found,) = manifests.workloads(objects(text, **spec), manifests.Reading())
    return found


def trigger(**metadata: str | None) -> list[dict[str, Any]]:
    """The overlay's trigger with other metadata (None: removed), as `triggers`."""
    (found,) = objects()[1].body["spec"]["triggers"]
    changed = found["metadata"] | metadata
    return [found | {"metadata": {name: value for name, value in changed.items() if value is not None}}]


def outcome(
    of: Workload, arrivals: str, service: str = "10", cluster: Cluster | None = None, **traffic: Any
) -> Outcome:
    """The outcome of simulating a workload under traffic to its only queue."""
    came, time = read(arrivals, "arrivals"), read_service(service, "service")
    each = Traffic({of.queues[0]: came}, dict.fromkeys(of.queues, time), **traffic)
    (found,) = simulate([of], each, cluster or Cluster())
    return found


def written(folder: Path, text: str = OVERLAY) -> Path:
    """The overlay as a file."""
    path = folder / "overlay.yaml"
    path.write_text(text)
    return path
