"""The API server, Pod Security and KEDA's webhook accept every rendered object, and refuse faults."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import cluster
from ops.command import ROOT, output
from ops.secrets import listed
from ops.tools import kubectl, module_folders
from ops.validate import attribution, tree
from tests.e2e.api_server import ApiServer
from tests.e2e.provider import Provider
from tests.harness.manifest_faults import Fault, copied, faults

TIMEOUT_S = 120
OVERLAYS = sorted((ROOT / "kustomize" / "overlays").iterdir())
RENDERED = [
    *OVERLAYS,
    ROOT / "kustomize" / "base",
    ROOT / "helm-releases",
    ROOT / "loadtest" / "cluster-platform",
    *(path.parent for path in sorted((ROOT / "clusters").rglob("kustomization.yaml")) if path.parent.name != "secrets"),
]
RESTRICTED = ("fastapi", "celery-workers")
PLATFORM = ("data", "nginx", "keda")
FAULTS = faults(Path(__file__).with_name("faults.yaml"))


@pytest.fixture(scope="module", autouse=True)
def _flux_kinds(platform: Provider) -> None:  # noqa: ARG001 - it installs KEDA's kinds
    """Apply Flux's kinds, every namespace (also that of `flux install`) and every PriorityClass."""
    flux = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}
    needed = ("Namespace", "PriorityClass")  # a pod is admitted only if both exist
    ours = [each for folder in RENDERED for each in rendered(folder) if each["kind"] in needed]
    cluster.ask("apply", "--server-side", "--force-conflicts", "--filename=-", text=listed([flux, *ours]))
    for module in module_folders()[1:]:
        crds = f"--filename={module / 'config' / 'crd' / 'bases'}"
        cluster.ask("apply", "--server-side", "--force-conflicts", crds)


def rendered(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a folder, namespaces first."""
    objects = yaml.safe_load_all(output(kubectl(), "kustomize", folder, timeout_s=TIMEOUT_S))
    return sorted(objects, key=lambda each: each["kind"] != "Namespace")


def dry_run(verb: str, objects: list[dict[str, Any]]) -> str:
    """Return errors and warnings of a server-side dry run, which stores nothing."""
    options = ("--dry-run=server", "--validate=strict", "--filename=-")
    done = subprocess.run(
        [kubectl(), verb, *options], input=listed(objects), capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    return done.stderr


def as_pod(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of a Deployment: Pod Security accepts any Deployment, and refuses its pods."""
    template = copy.deepcopy(workload["spec"]["template"])
    template["metadata"] |= {"name": "dry-run", "namespace": workload["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", **template}


def deployments(folder: Path) -> list[dict[str, Any]]:
    """Return the Deployments of an overlay."""
    return [each for each in rendered(folder) if each["kind"] == "Deployment"]


def scaler() -> dict[str, Any]:
    """Return the base's ScaledObject."""
    return next(each for each in rendered(ROOT / "kustomize" / "base") if each["kind"] == "ScaledObject")


@pytest.mark.parametrize("folder", RENDERED, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_object_is_accepted_without_warning(folder: Path) -> None:
    said = dry_run("apply", rendered(folder))
    # The only other output is about objects that `make secrets` created on the server.
    assert [line for line in said.splitlines() if "last-applied-configuration" not in line] == []


@pytest.fixture(scope="module")
def api_server(_flux_kinds: None) -> Iterator[ApiServer]:
    """Return the API server after it accepted everything in git, so that for a fault only changed objects are sent."""
    with ApiServer.reached() as reached:
        assert [str(finding) for finding in reached.findings(tree.render(ROOT))] == []
        yield reached


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_api_server_reports_the_fault(api_server: ApiServer, fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    changed = tree.render(clone, fault.targets)
    assert changed.findings == []
    fault.assert_found(attribution.attribute(changed, api_server.findings(changed)))


def test_strict_validation_refuses_unknown_field() -> None:
    wrong = deployments(OVERLAYS[0])[0]
    wrong["spec"]["replcas"] = 2
    assert "replcas" in dry_run("apply", [wrong])


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda folder: folder.name)
def test_every_pod_is_admitted_as_restricted(folder: Path) -> None:
    for name in RESTRICTED:
        labels = json.loads(cluster.ask("get", "namespace", name, "--output=json"))["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [as_pod(each) for each in deployments(folder)]
    assert {pod["metadata"]["namespace"] for pod in pods} == set(RESTRICTED)
    assert [dry_run("create", [pod]) for pod in pods] == [""] * len(pods)


@pytest.mark.parametrize("name", PLATFORM)
def test_pods_of_the_charts_are_admitted_as_restricted(name: str) -> None:
    namespace = json.loads(cluster.ask("get", "namespace", name, "--output=json"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert json.loads(cluster.ask("get", "pods", f"--namespace={name}", "--output=json"))["items"]


def test_pod_that_is_not_restricted_is_refused() -> None:
    pod = as_pod(deployments(OVERLAYS[0])[0])
    del pod["spec"]["securityContext"]["seccompProfile"]
    assert "violates PodSecurity" in dry_run("create", [pod])


def test_keda_warns_of_polling_interval_without_cached_metrics() -> None:
    idle = scaler()
    for trigger in idle["spec"]["triggers"]:
        del trigger["useCachedMetrics"]
    assert "Warning" in dry_run("apply", [idle])


def test_keda_refuses_maximum_below_minimum() -> None:
    wrong = scaler()
    wrong["spec"]["maxReplicaCount"] = 1
    assert "maxReplicaCount" in dry_run("apply", [wrong])
