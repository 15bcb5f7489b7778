"""Rules for the NetworkPolicies: each flow of the diagram passes, and nothing else does."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product
from typing import Any

from deploy.validate.references import matches
from deploy.validate.tree import Finding, Object, Tree, walk

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

TCP, UDP = "TCP", "UDP"
FLOWS = {
    (NGINX, API, TCP, 8000),
    *((pod, RABBITMQ, TCP, 5672) for pod in (API, WORKER, RECORDER)),
    *((pod, REDIS, TCP, 6379) for pod in (API, WORKER, RECORDER)),
    (KEDA, RABBITMQ, TCP, 15672),
    (RABBITMQ, RABBITMQ, TCP, 4369),
    (RABBITMQ, RABBITMQ, TCP, 25672),
    # answers that do not fit a datagram come by TCP
    *((pod, DNS, protocol, 53) for pod in (API, WORKER, RECORDER, RABBITMQ, REDIS) for protocol in (UDP, TCP)),
    (PROMETHEUS, API, TCP, 8000),
    (PROMETHEUS, WORKER, TCP, 9100),
    (PROMETHEUS, RABBITMQ, TCP, 15692),
}
# namespaces whose traffic is denied but for those flows; the others are their charts' business
CLOSED = {"fastapi", "celery-workers", "data"}
# and two that are in no flow
PORTS = sorted({port for *_, port in FLOWS} | {22, 443})
# the addresses that pods may have, and how many a cluster takes of them; a smaller block is a service outside
POD_ADDRESSES = 2**16
POD_RANGES = [
    ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]


@dataclass(frozen=True)
class Flow:
    """One that is asked for or not: what the policies are tried with."""

    source: Pod
    destination: Pod
    protocol: str
    port: int

    @property
    def wanted(self) -> bool:
        """Whether the diagram has it."""
        return (self.source, self.destination, self.protocol, self.port) in FLOWS

    def __str__(self) -> str:
        return f"flow {self.source} -> {self.destination}:{self.port}/{self.protocol}"


def check(tree: Tree) -> Iterator[Finding]:
    """Every flow between any two pods, in every overlay."""
    for target in tree.rendered:
        policies = list(tree.objects("NetworkPolicy", target=target))
        for policy in policies:
            yield from _named_ports(policy)
        for flow in _flows() if policies else ():
            yield from (Finding(FILE, str(flow), *problem, target) for problem in _flow(policies, flow))


def _named_ports(policy: Object) -> Iterator[Finding]:
    for path, value in walk(policy.spec, "spec"):
        if path.endswith(".port") and isinstance(value, str):
            yield policy.finding(path, f"{value}: give the port's number, which says the same of every pod")


def _flows() -> Iterator[Flow]:
    for source, destination in product(PODS, PODS):
        if {source.namespace, destination.namespace} & CLOSED:
            for protocol, port in product((TCP, UDP), PORTS):
                yield Flow(source, destination, protocol, port)


def _flow(policies: list[Object], flow: Flow) -> Iterator[tuple[str, str]]:
    """(field, message) of what is wrong with it."""
    leaves, enters = _passes(policies, "Egress", flow), _passes(policies, "Ingress", flow)
    if flow.wanted and not leaves:
        yield "egress", f"no NetworkPolicy in {flow.source.namespace} lets it out"
    if flow.wanted and not enters:
        yield "ingress", f"no NetworkPolicy in {flow.destination.namespace} lets it in"
    if leaves and enters and not flow.wanted:
        yield "policyTypes", "is let through, and is no flow of the diagram"


def _passes(policies: Iterable[Object], direction: str, flow: Flow) -> bool:
    """Whether the policies at one end of a flow let it pass; without any that selects the pod, everything passes."""
    pod = flow.source if direction == "Egress" else flow.destination
    mine = [
        each.spec
        for each in policies
        if each.namespace == pod.namespace
        and direction in _types(each.spec)
        and matches(each.spec.get("podSelector") or {}, pod.labels)
    ]
    rules = [rule for spec in mine for rule in spec.get(direction.lower()) or []]
    return not mine or any(_rule_passes(rule, direction, flow) for rule in rules)


def _types(spec: dict[str, Any]) -> list[str]:
    """Not given: Ingress, and Egress if there are rules for it."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _rule_passes(rule: dict[str, Any], direction: str, flow: Flow) -> bool:
    """A list that is missing or empty means everyone, or every port."""
    peers, ports = rule.get("to" if direction == "Egress" else "from"), rule.get("ports")
    return (not ports or any(_port(each, flow) for each in ports)) and (
        not peers or any(_peer(peer, direction, flow) for peer in peers)
    )


def _port(each: dict[str, Any], flow: Flow) -> bool:
    first = each.get("port")
    number = first is None or (isinstance(first, int) and first <= flow.port <= each.get("endPort", first))
    return number and each.get("protocol", TCP) == flow.protocol


def _peer(peer: dict[str, Any], direction: str, flow: Flow) -> bool:
    pod, other = (flow.source, flow.destination) if direction == "Egress" else (flow.destination, flow.source)
    if "ipBlock" in peer:  # pods change their addresses: a block may let one through, and is no way to be sure of it
        return not flow.wanted and _may_have_pods(peer["ipBlock"])
    if "namespaceSelector" in peer:
        namespace = matches(peer["namespaceSelector"] or {}, {"kubernetes.io/metadata.name": other.namespace})
    else:
        namespace = other.namespace == pod.namespace
    return namespace and matches(peer.get("podSelector") or {}, other.labels)


def _may_have_pods(block: dict[str, Any]) -> bool:
    """Whether a block is wide enough for the pods of a cluster, and leaves one of their ranges in."""
    network = ip_network(block["cidr"])
    left_out = [ip_network(each) for each in block.get("except") or []]
    ranges = [each for each in POD_RANGES if not any(_inside(each, out) for out in left_out)]
    return network.num_addresses >= POD_ADDRESSES and any(network.overlaps(each) for each in ranges)


def _inside(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
