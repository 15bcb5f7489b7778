"""Rules for the NetworkPolicies: each flow of the diagram passes, and nothing else does."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from deploy.validate.references import matches
from deploy.validate.tree import Finding, Object, Tree

FILE = "kustomize/base/network/kustomization.yaml"


@dataclass(frozen=True)
class Pod:
    """As a NetworkPolicy sees it."""

    namespace: str
    name: str

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.name}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


NGINX, KEDA = Pod("nginx", "nginx-ingress"), Pod("keda", "keda-operator")
API, WORKER = Pod("fastapi", "api"), Pod("celery-workers", "celery-worker")
RECORDER = Pod("celery-workers", "dead-letter-recorder")
RABBITMQ, REDIS = Pod("data", "rabbitmq"), Pod("data", "redis")
DNS, PROMETHEUS = Pod("kube-system", "kube-dns"), Pod("monitoring", "prometheus")
PODS = (NGINX, KEDA, API, WORKER, RECORDER, RABBITMQ, REDIS, DNS, PROMETHEUS)

FLOWS = {
    (NGINX, API, 8000),
    *((pod, RABBITMQ, 5672) for pod in (API, WORKER, RECORDER)),
    *((pod, REDIS, 6379) for pod in (API, WORKER, RECORDER)),
    (KEDA, RABBITMQ, 15672),
    (RABBITMQ, RABBITMQ, 4369),
    (RABBITMQ, RABBITMQ, 25672),
    *((pod, DNS, 53) for pod in (API, WORKER, RECORDER, RABBITMQ, REDIS)),
    (PROMETHEUS, API, 8000),
    (PROMETHEUS, WORKER, 9100),
    (PROMETHEUS, RABBITMQ, 15692),
}
# namespaces whose traffic is denied but for those flows; the others are their charts' business
CLOSED = {"fastapi", "celery-workers", "data"}
PORTS = sorted({port for *_, port in FLOWS} | {22, 443})


def check(tree: Tree) -> Iterator[Finding]:
    """Every flow between any two pods, in every overlay."""
    for target in tree.rendered:
        policies = list(tree.objects("NetworkPolicy", target=target))
        if policies:
            yield from _flows(policies)


def _flows(policies: list[Object]) -> Iterator[Finding]:
    for source in PODS:
        for destination in PODS:
            if {source.namespace, destination.namespace} & CLOSED:
                for port in PORTS:
                    yield from _flow(policies, source, destination, port)


def _flow(policies: list[Object], source: Pod, destination: Pod, port: int) -> Iterator[Finding]:
    wanted = (source, destination, port) in FLOWS
    name = f"flow {source} -> {destination}:{port}"
    leaves = _passes(policies, "Egress", source, destination, port)
    enters = _passes(policies, "Ingress", destination, source, port)
    if wanted and not leaves:
        yield Finding(FILE, name, "egress", f"no NetworkPolicy in {source.namespace} lets it out")
    if wanted and not enters:
        yield Finding(FILE, name, "ingress", f"no NetworkPolicy in {destination.namespace} lets it in")
    if leaves and enters and not wanted:
        yield Finding(FILE, name, "policyTypes", "is let through, and is no flow of the diagram")


def _passes(policies: Iterable[Object], direction: str, pod: Pod, other: Pod, port: int) -> bool:
    """Whether the policies that select `pod` let it talk to `other`; with none of them, everything passes."""
    mine = [
        each.spec
        for each in policies
        if each.namespace == pod.namespace
        and direction in each.spec["policyTypes"]
        and matches(each.spec["podSelector"], pod.labels)
    ]
    rules = [rule for spec in mine for rule in spec.get(direction.lower(), [])]
    return not mine or any(_rule_passes(rule, pod, other, port) for rule in rules)


def _rule_passes(rule: dict[str, Any], pod: Pod, other: Pod, port: int) -> bool:
    peers = rule.get("to", rule.get("from"))
    ports = rule.get("ports")
    return (ports is None or any(each.get("port") in {port, None} for each in ports)) and (
        peers is None or any(_peer(peer, pod, other) for peer in peers)
    )


def _peer(peer: dict[str, Any], pod: Pod, other: Pod) -> bool:
    if "namespaceSelector" in peer:
        namespace = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        namespace = other.namespace == pod.namespace
    return namespace and matches(peer.get("podSelector", {}), other.labels)
