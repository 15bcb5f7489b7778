"""The target of CLUSTER=1: the system in the cluster of kubectl's context, behind its ingress."""

import http.client
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from apps.contract import keys
from loadtest.gates import Seen
from loadtest.sample import Depths, Sample, Usage, accepted_by_task, depths, left, working
from ops import cluster
from ops.command import Unusable
from ops.forward import api_server, forwarded
from ops.management import Management

TIMEOUT_S = 20.0
WORKER = "/apis/apps/v1/namespaces/celery-workers/deployments/celery-worker"
SCALER = "/apis/keda.sh/v1alpha1/namespaces/celery-workers/scaledobjects/celery-worker-scaler"
# A program that prints the metrics of an API pod. It runs in the pod, because NetworkPolicies block other access.
METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
# (namespace, prefix of a pod's name) -> part of the system
PARTS = {
    ("nginx", ""): "NGINX",
    ("fastapi", "api-"): "API",
    ("data", "rabbitmq-"): "RabbitMQ",
    ("celery-workers", "celery-worker-"): "workers",
    ("data", "redis-"): "Redis",
    ("celery-workers", "dead-letter-recorder-"): "recorder",
    ("keda", ""): "KEDA",
}


class Cluster:
    """Reads replicas from the API server, CPU and memory usage from the kubelets, and queue lengths from RabbitMQ."""

    def __init__(self, url: str, api_port: int, management: Management) -> None:
        self.url = url.rstrip("/")
        self.host = cluster.ingress_host()  # the Host header, because the URL may be NGINX's address
        self.key = keys.first_key(cluster.secret("fastapi", "api")["API_KEYS"])
        self._api_port = api_port
        self._management = management
        self._nodes = [item["metadata"]["name"] for item in self._get("/api/v1/nodes")["items"]]
        self._accepted_before, self._queues_before = self._accepted(), self._depths()
        self.about = {
            "where": self.url,
            "size": f"a cluster of {len(self._nodes)} node(s), context {cluster.check()}",
            "rabbitmq": ".".join(map(str, management.version)),
        }

    def sample(self) -> Sample:
        """The current sample. Raises Unusable if the cluster or the broker does not answer."""
        ready, unacked = working(self._depths())
        spec, workers = self._get(SCALER)["spec"], self._get(WORKER)["status"].get("readyReplicas", 0)
        bounds = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)  # with KEDA's defaults
        return Sample(ready, unacked, self._usage(), workers, *bounds)

    def queues(self) -> dict[str, int]:
        """Messages left in each queue. Tasks that were queued before the run count too."""
        return left(self._depths(), self._queues_before)

    def seen(self) -> Seen:
        """The counters since the start of the run, without workers, whose counters are lost when they are scaled."""
        return Seen(self._accepted() - self._accepted_before, self.queues())

    def _depths(self) -> Depths:
        return depths(self._management, "/")

    def _accepted(self) -> Counter[str]:
        where = ("--namespace=fastapi", "--selector=app.kubernetes.io/name=api", "--output=name")
        pods = cluster.ask("get", "pods", "--field-selector=status.phase=Running", *where).split()
        texts = [cluster.ask("exec", "--namespace=fastapi", pod, "--", "python", "-c", METRICS) for pod in pods]
        return accepted_by_task(texts)

    def _usage(self) -> Mapping[str, Mapping[str, Usage]]:
        found: dict[str, dict[str, Usage]] = {part: {} for part in PARTS.values()}
        for node in self._nodes:
            for pod in self._get(f"/api/v1/nodes/{node}/proxy/stats/summary").get("pods", []):
                name, used_ns = pod["podRef"]["name"], pod.get("cpu", {}).get("usageCoreNanoSeconds")
                part = _part(pod["podRef"]["namespace"], name)
                if part and used_ns is not None:  # absent for pods that start or end
                    found[part][name] = Usage(used_ns / 1e9, pod.get("memory", {}).get("workingSetBytes", 0) / 1e6)
        return found

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._api_port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != http.client.OK:
                raise Unusable(f"The cluster answers {answer.status} for {path}: deploy the system (`make deploy`).")
            document: dict[str, Any] = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise Unusable(f"The cluster does not answer for {path}: {exc}.") from exc
        finally:
            connection.close()
        return document


@contextmanager
def entered(url: str) -> Iterator[Cluster]:
    """Connect to the cluster of kubectl's context. Raises Unusable if a part of it cannot be observed."""
    cluster.check()
    broker = cluster.secret("celery-workers", "rabbitmq-keda")  # this user may only read queue lengths
    with api_server() as port, forwarded("data", "service/rabbitmq", 15672) as rabbitmq:
        yield Cluster(url, port, Management(f"http://127.0.0.1:{rabbitmq}", broker["username"], broker["password"]))


def _part(namespace: str, pod: str) -> str | None:
    return next((part for (place, name), part in PARTS.items() if place == namespace and pod.startswith(name)), None)
