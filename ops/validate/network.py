"""Rules for the NetworkPolicies: each flow of the diagram passes, and nothing else does."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product
from typing import Any

from ops.validate.references import matches
from ops.validate.tree import Finding, Object, Tree, walk

# where the policies of each namespace are
FILES = {
    "fastapi": "kustomize/base/network/kustomization.yaml",
    "celery-workers": "kustomize/base/network/kustomization.yaml",
    "data": "helm-releases/network/kustomization.yaml",
}


@dataclass(frozen=True)
class Pod:
    """As a NetworkPolicy sees it."""

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
DIRECTIONS = ("Egress", "Ingress")
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
    *((PROMETHEUS, pod, TCP, 9100) for pod in (WORKER, RECORDER)),
    (PROMETHEUS, RABBITMQ, TCP, 15692),
}
# namespaces whose traffic is denied but for those flows; the others are their charts' business
CLOSED = FILES.keys()
# and two that are in no flow
PORTS = sorted({port for *_, port in FLOWS} | {22, 443})
# the addresses that pods may have, and how many a cluster takes of them; a smaller block is a service outside
POD_ADDRESSES = 2**16
POD_RANGES = [
    ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]


# Policies that passed in this process: tests validate nearly the same tree many times.
_VALID: set[str] = set()


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

    def end(self, direction: str) -> Pod:
        """The pod whose policies of a direction matter."""
        return self.source if direction == "Egress" else self.destination

    def __str__(self) -> str:
        return f"flow {self.source} -> {self.destination}:{self.port}/{self.protocol}"


def check(tree: Tree) -> Iterator[Finding]:
    """Every flow between any two pods, in every target; what one line of a policy does to many is one finding.

    A target is checked for the namespaces that it makes: overlays for API and workers, the platform for `data`.
    So the policies at each end of a flow suffice without those at the other end.
    """
    for target in tree.rendered:
        policies = list(tree.objects("NetworkPolicy", target=target))
        closed = CLOSED & {each.name for each in tree.objects("Namespace", target=target)}
        text = json.dumps([sorted(closed), *(each.body for each in policies)])
        if policies and text not in _VALID:
            found = [*_named_ports(policies), *_all(policies, closed)]
            yield from (replace(each, target=target) for each in found)
            if not found:
                _VALID.add(text)


def _all(policies: list[Object], closed: Collection[str]) -> Iterator[Finding]:
    found = defaultdict(list)
    for flow in _flows(closed):
        for finding in _flow(policies, flow):
            found[finding].append(flow)
    for finding, flows in found.items():
        more = f" (and {len(flows) - 1} more)" if len(flows) > 1 else ""
        yield replace(finding, message=f"{flows[0]}{more} {finding.message}")


def _named_ports(policies: list[Object]) -> Iterator[Finding]:
    for policy in policies:
        for path, value in walk(policy.spec, "spec"):
            if path.endswith(".port") and isinstance(value, str):
                yield policy.finding(path, f"{value}: give the port's number, which says the same of every pod")


def _flows(closed: Collection[str] = CLOSED) -> Iterator[Flow]:
    for source, destination in product(PODS, PODS):
        if source.namespace in closed or destination.namespace in closed:
            for protocol, port in product((TCP, UDP), PORTS):
                yield Flow(source, destination, protocol, port)


def _flow(policies: list[Object], flow: Flow) -> Iterator[Finding]:
    """What is wrong with it, at the policy that one must change."""
    passes = [_passes(policies, direction, flow) for direction in DIRECTIONS]
    if flow.wanted:
        for direction in (each for each, passed in zip(DIRECTIONS, passes, strict=True) if not passed):
            yield _blocked(policies, direction, flow)
    elif all(passes):
        yield from _let_through(policies, flow)


def _blocked(policies: list[Object], direction: str, flow: Flow) -> Finding:
    """At the policy that has one thing wrong and serves no other flow, or the fewest."""
    namespace = flow.end(direction).namespace
    near = [
        (sum(_lets(each, direction, other) for other in _flows() if other.wanted), number, wrong[0])
        for number, each in enumerate(policies)
        if each.namespace == namespace and len(wrong := _wrong(each, direction, flow)) == 1
    ]
    if near:
        _, number, field = min(near)
        return policies[number].finding(f"spec.{field}", "does not pass")
    where = f"NetworkPolicies of {namespace}"
    return Finding(FILES[namespace], where, direction.lower(), "does not pass: there is no NetworkPolicy for it")


def _wrong(policy: Object, direction: str, flow: Flow) -> list[str]:
    """The fields that keep a policy from letting a flow pass, by the rule that is nearest to it."""
    if direction not in _types(policy.spec) or not policy.spec.get(direction.lower()):
        return ["policyTypes", direction.lower()]
    selector = [] if _selects(policy, flow.end(direction)) else ["podSelector"]
    rules = [
        [f"{direction.lower()}.{number}.{part}" for part in _parts(rule, direction, flow)]
        for number, rule in enumerate(policy.spec[direction.lower()])
    ]
    return selector + min(rules, key=len)


def _let_through(policies: list[Object], flow: Flow) -> Iterator[Finding]:
    """At each policy that does it; with none at either end at the folder that lacks one."""
    message = "passes, and is no flow of the diagram"
    rules = [
        (each, f"spec.{direction.lower()}.{number}")
        for direction, each in product(DIRECTIONS, policies)
        if _selects(each, flow.end(direction)) and direction in _types(each.spec)
        for number, rule in enumerate(each.spec.get(direction.lower()) or [])
        if not list(_parts(rule, direction, flow))
    ]
    for each, field in rules:
        yield each.finding(field, message)
    if not rules:
        closed = next(pod.namespace for pod in (flow.destination, flow.source) if pod.namespace in CLOSED)
        yield Finding(FILES[closed], f"NetworkPolicies of {closed}", "policyTypes", message)


def _passes(policies: Iterable[Object], direction: str, flow: Flow) -> bool:
    """Whether the policies at one end of a flow let it pass; without any that selects the pod, everything passes."""
    pod = flow.end(direction)
    mine = [each for each in policies if _selects(each, pod) and direction in _types(each.spec)]
    return not mine or any(_lets(each, direction, flow) for each in mine)


def _lets(policy: Object, direction: str, flow: Flow) -> bool:
    return policy.namespace == flow.end(direction).namespace and not _wrong(policy, direction, flow)


def _selects(policy: Object, pod: Pod) -> bool:
    return policy.namespace == pod.namespace and matches(policy.spec.get("podSelector") or {}, pod.labels)


def _types(spec: dict[str, Any]) -> list[str]:
    """Not given: Ingress, and Egress if there are rules for it."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _parts(rule: dict[str, Any], direction: str, flow: Flow) -> Iterator[str]:
    """The parts of a rule that do not fit a flow; a list that is missing or empty means everyone, or every port."""
    who = "to" if direction == "Egress" else "from"
    peers, ports = rule.get(who), rule.get("ports")
    if peers and not any(_peer(peer, direction, flow) for peer in peers):
        yield who
    if ports and not any(_port(each, flow) for each in ports):
        yield "ports"


def _port(each: dict[str, Any], flow: Flow) -> bool:
    first = each.get("port")
    number = first is None or (isinstance(first, int) and first <= flow.port <= each.get("endPort", first))
    return number and each.get("protocol", TCP) == flow.protocol


def _peer(peer: dict[str, Any], direction: str, flow: Flow) -> bool:
    pod, other = (flow.end(each) for each in (DIRECTIONS if direction == "Egress" else reversed(DIRECTIONS)))
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
