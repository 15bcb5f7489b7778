"""Read and change objects of the cluster that KUBECONFIG names, and wait for their state."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ops import cluster
from ops.command import ROOT
from ops.servers import child

WORKER = ("celery-workers", "deployment", "celery-worker")
API = ("fastapi", "deployment", "api")
RECORDER = ("celery-workers", "deployment", "dead-letter-recorder")
SCALER = ("celery-workers", "scaledobject", "celery-worker-scaler")
RABBITMQ = ("data", "statefulset", "rabbitmq")
KEDA = ("keda", "deployment", "keda-operator")
LOCAL = ROOT / "kustomize" / "overlays" / "local"
OVERLAYS = ROOT / "tests" / "e2e" / "overlays"
TIMEOUT_S = 300
# Each poll starts kubectl. Without a pause the polls would use one of two cores, and slow down the awaited change.
POLL_S = 0.5

Name = tuple[str, str, str]


def kubeconfig() -> Path:
    """The path of the kubeconfig."""
    return Path(os.environ["KUBECONFIG"])


def get(name: Name) -> dict[str, Any]:
    """Return an object by its namespace, kind and name."""
    namespace, kind, object_name = name
    answer: dict[str, Any] = json.loads(
        cluster.ask("get", kind, object_name, f"--namespace={namespace}", "--output=json")
    )
    return answer


def pods(name: Name) -> list[dict[str, Any]]:
    """Return the pods of a Deployment or StatefulSet that are not terminating."""
    labels = get(name)["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    answer = json.loads(cluster.ask("get", "pods", f"--namespace={name[0]}", f"--selector={selector}", "--output=json"))
    return [pod for pod in answer["items"] if "deletionTimestamp" not in pod["metadata"]]


def patch(name: Name, operations: list[dict[str, Any]]) -> None:
    """Change an object by JSON patch."""
    namespace, kind, object_name = name
    where = (kind, object_name, f"--namespace={namespace}")
    cluster.ask("patch", *where, "--type=json", f"--patch={json.dumps(operations)}")


def set_maximum(count: int) -> None:
    """Set maxReplicaCount of the workers' ScaledObject."""
    patch(SCALER, [{"op": "replace", "path": "/spec/maxReplicaCount", "value": count}])


def scale(name: Name, count: int) -> None:
    """Set the replicas of a Deployment or StatefulSet."""
    namespace, kind, object_name = name
    cluster.ask("scale", f"{kind}/{object_name}", f"--namespace={namespace}", f"--replicas={count}")


def apply(folder: Path) -> str:
    """Apply an overlay; returns the output of kubectl."""
    return cluster.ask("apply", f"--kustomize={folder}", timeout_s=TIMEOUT_S)


def rolled_out(name: Name) -> None:
    """Wait until the rollout of a workload is complete."""
    namespace, kind, object_name = name
    where = (f"{kind}/{object_name}", f"--namespace={namespace}", f"--timeout={TIMEOUT_S}s")
    # cluster.ask passes --request-timeout, which would end the watch of the rollout
    cluster.ask("rollout", "status", *where, timeout_s=TIMEOUT_S)


def replicas(name: Name) -> tuple[int, int]:
    """Return the (ready, desired) replicas of a Deployment."""
    found = get(name)
    return found["status"].get("readyReplicas", 0), found["spec"]["replicas"]


def until(condition: Callable[[], bool], deadline_s: float, what: str) -> None:
    """Wait until a condition holds. The pause between polls is long, because each poll queries the cluster."""
    child.until(condition, deadline_s, what, POLL_S)


def settled(name: Name, count: int, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until a Deployment has exactly `count` ready replicas and desires the same number."""
    until(lambda: replicas(name) == (count, count), timeout_s, f"{count} replicas of {name[2]}")


def secret(namespace: str, name: str) -> dict[str, str]:
    """Return the decoded data of a Secret."""
    data = get((namespace, "secret", name))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def container_ids(pod: dict[str, Any]) -> Iterator[str]:
    """Yield the ids that a pod's containers have in the node's container runtime."""
    for status in pod["status"]["containerStatuses"]:
        yield status["containerID"].partition("://")[2]
