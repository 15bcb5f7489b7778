"""NetworkPolicies: the cluster has each, and each selects running pods.

These tests do not show that traffic is refused: the minicluster's network bridge enforces no policy. `make validate`
computes that the policies allow exactly the flows of the diagram.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops import cluster
from ops.command import ROOT, output
from ops.tools import kubectl
from ops.validate import network, tree
from ops.validate.references import matches
from tests.e2e.system import System

TIMEOUT_S = 60
# namespaces without pods here: no Prometheus runs
ABSENT = {"monitoring"}


def listed(kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(cluster.ask("get", kind, "--all-namespaces", "--output=json"))["items"]
    return items


@pytest.fixture(scope="module")
def pods(running: System) -> list[dict[str, Any]]:  # noqa: ARG001 - deploys the pods
    return listed("pods")


@pytest.fixture(scope="module")
def wanted() -> set[tuple[str, str]]:
    """The (namespace, name) of each policy in the manifests of the application and the platform."""
    folders = (ROOT / "kustomize" / "base" / "network", ROOT / "helm-releases" / "network")
    texts = [output(kubectl(), "kustomize", folder, timeout_s=TIMEOUT_S) for folder in folders]
    return {key(each) for text in texts for each in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def policies(running: System, wanted: set[tuple[str, str]]) -> list[dict[str, Any]]:  # noqa: ARG001 - deploys the policies
    """The cluster's policies, without those that its owner has in other namespaces."""
    ours = {namespace for namespace, _ in wanted}
    return [each for each in listed("networkpolicies") if each["metadata"]["namespace"] in ours]


def key(each: dict[str, Any]) -> tuple[str, str]:
    return each["metadata"]["namespace"], each["metadata"]["name"]


def peers(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for rule in policy["spec"].get("ingress", []):
        yield from rule.get("from", [])
    for rule in policy["spec"].get("egress", []):
        yield from rule.get("to", [])


def namespace_of(peer: dict[str, Any], policy: dict[str, Any]) -> str:
    labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
    return str(labels.get("kubernetes.io/metadata.name", policy["metadata"]["namespace"]))


def some(pods: list[dict[str, Any]], namespace: str, selector: dict[str, Any]) -> bool:
    here = [pod["metadata"]["labels"] for pod in pods if pod["metadata"]["namespace"] == namespace]
    return any(matches(selector, labels) for labels in here)


def test_every_policy_is_in_the_cluster(policies: list[dict[str, Any]], wanted: set[tuple[str, str]]) -> None:
    assert {key(each) for each in policies} == wanted


def test_every_policy_selects_running_pods(policies: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
    idle = [
        each["metadata"]["name"]
        for each in policies
        if not some(pods, each["metadata"]["namespace"], each["spec"]["podSelector"])
    ]
    assert idle == []


def test_every_peer_selects_running_pods(policies: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
    nobody = [
        (policy["metadata"]["name"], peer)
        for policy in policies
        for peer in peers(policy)
        if namespace_of(peer, policy) not in ABSENT
        and not some(pods, namespace_of(peer, policy), peer.get("podSelector", {}))
    ]
    assert nobody == []


def test_policies_allow_exactly_the_flows_of_the_diagram() -> None:
    assert [str(each) for each in network.check(tree.render(ROOT))] == []
