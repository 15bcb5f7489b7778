"""Rules for NetworkPolicies: they allow each flow of the README's diagram, and block all other flows."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product
from typing import Any

from ops.validate.references import matches
from ops.validate.tree import Finding, Object, Tree, walk

# namespace that denies all flows by default -> file of its policies. Other namespaces have only their charts' policies.
FILES = {
    "fastapi": "kustomize/base/network/fastapi.yaml",
    "celery-workers": "kustomize/base/network/celery-workers.yaml",
    "data": "helm-releases/network/data.yaml",
}


@dataclass(frozen=True)
class Pod:
    """A pod as a NetworkPolicy sees it."""

    namespace: str
    name: str
    label: str = "app.kubernetes.io/name"

    @property
    def labels(self) -> dict[str, str]:
        return {self.label: self.name}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


NGINX, KEDA = Pod("nginx", "nginx-ingress"), Pod("keda", "keda-operator")
API, WORKER = Pod("fastapi", "api"), Pod("celery-workers", "celery-worker")
RECORDER = Pod("celery-workers", "dead-letter-recorder")
RABBITMQ, REDIS = Pod("data", "rabbitmq"), Pod("data", "redis")
DNS, PROMETHEUS = Pod("kube-system", "kube-dns", "k8s-app"), Pod("monitoring", "prometheus")
PODS = (NGINX, KEDA, API, WORKER, RECORDER, RABBITMQ, REDIS, DNS, PROMETHEUS)

TCP, UDP = "TCP", "UDP"
EGRESS, INGRESS = "Egress", "Ingress"
FLOWS = {
    (NGINX, API, TCP, 8000),
    *((pod, RABBITMQ, TCP, 5672) for pod in (API, WORKER, RECORDER)),
    *((pod, REDIS, TCP, 6379) for pod in (API, WORKER, RECORDER)),
    (KEDA, RABBITMQ, TCP, 15672),
    (RABBITMQ, RABBITMQ, TCP, 4369),
    (RABBITMQ, RABBITMQ, TCP, 25672),
    # DNS answers that do not fit into a datagram are sent over TCP
    *((pod, DNS, protocol, 53) for pod in (API, WORKER, RECORDER, RABBITMQ, REDIS) for protocol in (UDP, TCP)),
    (PROMETHEUS, API, TCP, 8000),
    *((PROMETHEUS, pod, TCP, 9100) for pod in (WORKER, RECORDER)),
    (PROMETHEUS, RABBITMQ, TCP, 15692),
}
# the ports of the flows, and two ports that no flow uses
PORTS = sorted({port for *_, port in FLOWS} | {22, 443})
# ranges of pod addresses. An ipBlock with fewer than POD_ADDRESSES addresses stands for an external service.
POD_ADDRESSES = 2**16
POD_RANGES = [
    ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]


@dataclass(frozen=True)
class Flow:
    """A possible connection, which the policies must allow or block."""

    source: Pod
    destination: Pod
    protocol: str
    port: int

    @property
    def required(self) -> bool:
        """Whether the flow is in the diagram."""
        return (self.source, self.destination, self.protocol, self.port) in FLOWS

    def __str__(self) -> str:
        return f"flow {self.source} -> {self.destination}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class End:
    """The policies at one end of a flow. `isolated`: any policy selects the pod; `rules`: those that allow the flow."""

    direction: str
    pod: Pod
    isolated: bool
    rules: list[tuple[Object, str]]  # (policy, field)

    @property
    def passes(self) -> bool:
        return bool(self.rules) or not self.isolated


def check(tree: Tree) -> Iterator[Finding]:
    """Check every flow between any two pods, for every target. Flows with the same fault become one finding.

    A target is checked only for the namespaces that it creates: an overlay for those of API and workers, the platform
    for `data`. Therefore a target needs the policies of only one end of a flow.
    """
    for target in tree.rendered:
        policies = list(tree.objects("NetworkPolicy", target=target))
        isolated_namespaces = FILES.keys() & {each.name for each in tree.objects("Namespace", target=target)}
        flows = defaultdict(list)
        for flow in _flows(isolated_namespaces) if policies else ():
            for finding in _check_flow(policies, flow):
                flows[finding].append(flow)
        for finding, found in flows.items():
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            yield replace(finding, message=f"{found[0]}{more} {finding.message}", target=target)
        for policy in policies:
            for path, value in walk(policy.spec, "spec"):
                if path.endswith(".port") and isinstance(value, str):
                    yield policy.finding(path, f"{value}: use the number of the port, which is the same for every pod")


def _flows(isolated_namespaces: Collection[str]) -> Iterator[Flow]:
    for source, destination in product(PODS, PODS):
        if source.namespace in isolated_namespaces or destination.namespace in isolated_namespaces:
            yield from (Flow(source, destination, *each) for each in product((TCP, UDP), PORTS))


def _check_flow(policies: list[Object], flow: Flow) -> Iterator[Finding]:
    """The faults of a flow, each with the file or the policy that must change."""
    ends = [_end(policies, direction, flow) for direction in (EGRESS, INGRESS)]
    if flow.required:
        for end in ends:
            if not end.passes:
                yield _namespace_finding(end, "does not pass: no NetworkPolicy allows it")
    elif all(end.passes for end in ends):
        message = "passes, but is not in the diagram of the README"
        yield from (policy.finding(field, message) for end in ends for policy, field in end.rules)
        if not any(end.rules for end in ends):
            yield _namespace_finding(next(end for end in reversed(ends) if end.pod.namespace in FILES), message)


def _namespace_finding(end: End, message: str) -> Finding:
    namespace = end.pod.namespace
    return Finding(FILES[namespace], f"NetworkPolicies of {namespace}", end.direction.lower(), message)


def _end(policies: list[Object], direction: str, flow: Flow) -> End:
    pod, other = flow.source, flow.destination
    if direction == INGRESS:
        pod, other = other, pod
    selecting = [
        each
        for each in policies
        if each.namespace == pod.namespace
        and direction in _types(each.spec)
        and matches(each.spec.get("podSelector") or {}, pod.labels)
    ]
    rules = [
        (each, f"spec.{direction.lower()}.{number}")
        for each in selecting
        for number, rule in enumerate(each.spec.get(direction.lower()) or [])
        if _allows(rule, "to" if direction == EGRESS else "from", flow, pod, other)
    ]
    return End(direction, pod, bool(selecting), rules)


def _types(spec: dict[str, Any]) -> list[str]:
    """The policyTypes of a policy. The default is Ingress, and also Egress if the policy has egress rules."""
    return spec.get("policyTypes") or [INGRESS, *([EGRESS] if spec.get("egress") else [])]


def _allows(rule: dict[str, Any], key: str, flow: Flow, pod: Pod, other: Pod) -> bool:
    """Whether a rule allows a flow. Without a list of peers or ports, the rule allows every peer or every port."""
    peers, ports = rule.get(key), rule.get("ports")
    allows_peer = not peers or any(_peer(peer, flow, pod, other) for peer in peers)
    return allows_peer and (not ports or any(_port(port, flow) for port in ports))


def _port(each: dict[str, Any], flow: Flow) -> bool:
    first = each.get("port")
    number = first is None or (isinstance(first, int) and first <= flow.port <= each.get("endPort", first))
    return number and each.get("protocol", TCP) == flow.protocol


def _peer(peer: dict[str, Any], flow: Flow, pod: Pod, other: Pod) -> bool:
    if "ipBlock" in peer:
        # Pod addresses change: an ipBlock may allow a forbidden flow, but does not reliably allow a required flow.
        return not flow.required and _may_have_pods(peer["ipBlock"])
    if "namespaceSelector" in peer:
        namespace = matches(peer["namespaceSelector"] or {}, {"kubernetes.io/metadata.name": other.namespace})
    else:
        namespace = other.namespace == pod.namespace
    return namespace and matches(peer.get("podSelector") or {}, other.labels)


def _may_have_pods(block: dict[str, Any]) -> bool:
    """Whether an ipBlock is large enough for a pod network, and overlaps a pod range that `except` does not contain."""
    network = ip_network(block["cidr"])
    excluded = [ip_network(each) for each in block.get("except") or []]
    ranges = [each for each in POD_RANGES if not any(_inside(each, out) for out in excluded)]
    return network.num_addresses >= POD_ADDRESSES and any(network.overlaps(each) for each in ranges)


def _inside(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # both have the same version
