"""A git push is a deployment: Flux follows clusters/local, in a cluster that has only Flux at first."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicluster import app_images
from minicluster.lifecycle import Minicluster
from minicluster.state import STATE
from ops import cluster, images
from ops.command import ROOT
from tests.e2e import objects
from tests.e2e.following import APPS, Following
from tests.e2e.objects import API, SCALER, WORKER
from tests.e2e.provider import chosen, started

pytestmark = pytest.mark.usefixtures("unmeasured")
SERVICE = ("nginx", "service", "nginx-ingress-controller")
OVERLAY = "kustomize/overlays/local"
MINIMUM = "path: /spec/minReplicaCount\n  value: {}"
FIGURES = ROOT / "build" / "e2e" / "flux.json"
# The interval of clusters/local/source.yaml, the interval at which the apps check whether the infrastructure that they
# depend on has the commit, and the time to apply on two busy cores.
PUSH_TIMEOUT_S = 60 + 30 + 120
RELEASE = "0.2.0"
BUILD_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def node(version: str) -> Iterator[Minicluster]:
    """A cluster beside the cluster of the other tests; it has only the project's images."""
    if not isinstance(chosen(), Minicluster):
        pytest.skip("pods of other clusters cannot reach a git server on this machine: see docs/deploy.md, With Flux")
    empty = Minicluster(STATE.with_name(f"{STATE.name}-flux"))
    with started(empty):
        for archive in app_images.built(version, local_base=True):
            empty.load_image(archive)
        yield empty


@pytest.fixture(scope="module")
def following(node: Minicluster, tmp_path_factory: pytest.TempPathFactory) -> Following:
    """The cluster after `make flux`: Flux has installed the whole system."""
    return Following(node, tmp_path_factory.mktemp("flux"))


def running() -> dict[str, int]:
    """Return the pods, and the generations of the objects that make pods: they are equal as long as nothing changes."""
    kinds = "deployments.apps,scaledobjects.keda.sh,pods"
    answers = [cluster.ask("get", kinds, f"--namespace={where}", "--output=json") for where in ("fastapi", WORKER[0])]
    items = [each["metadata"] | {"kind": each["kind"]} for text in answers for each in json.loads(text)["items"]]
    stay = (each for each in items if "deletionTimestamp" not in each)
    return {f"{each['kind']} {each['name']} {each['uid']}": each.get("generation", 0) for each in stay}


def by_hand(name: objects.Name, spec: dict[str, Any]) -> dict[str, Any]:
    """Change an object as `kubectl edit` does; returns the changed spec, which Flux may revert at any time."""
    namespace, kind, object_name = name
    patch = ("--type=merge", f"--patch={json.dumps({'spec': spec})}", "--field-manager=kubectl-edit")
    changed = cluster.ask("patch", kind, object_name, f"--namespace={namespace}", *patch, "--output=json")
    found: dict[str, Any] = json.loads(changed)["spec"]
    return found


def test_apps_are_created_after_the_platform_is_ready(following: Following) -> None:
    assert following.condition()["status"] == "True"
    releases = json.loads(cluster.ask("get", "helmreleases", "--all-namespaces", "--output=json"))["items"]
    conditions = [each for release in releases for each in release["status"]["conditions"] if each["type"] == "Ready"]
    assert [each["status"] for each in conditions] == ["True"] * 4
    made = [objects.get(each)["metadata"]["creationTimestamp"] for each in (API, WORKER, SCALER)]
    assert max(each["lastTransitionTime"] for each in conditions) <= min(made)


def test_pushed_minimum_reaches_the_scaled_object(following: Following) -> None:
    following.repository.edit(f"{OVERLAY}/scaled-object-min.yaml", MINIMUM.format(1), MINIMUM.format(2))
    began = time.monotonic()
    following.repository.commit("Two workers at least")
    objects.until(
        lambda: objects.get(SCALER)["spec"]["minReplicaCount"] == 2, PUSH_TIMEOUT_S, "the number in the ScaledObject"
    )
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps({"push_to_scaled_object_s": round(time.monotonic() - began, 1)}) + "\n")

    objects.settled(WORKER, 2)
    following.reconcile(APPS)
    assert (
        objects.get(WORKER)["spec"]["replicas"] == 2
    )  # the HPA set it: the manifests have no replicas, so Flux does not reset them


def test_release_rolls_out(following: Following, node: Minicluster, tmp_path: Path) -> None:
    following.repository.python(
        "-m", "ops.release", RELEASE, timeout_s=BUILD_TIMEOUT_S, **app_images.settings(local_base=True)
    )
    for image, name in images.full_names(RELEASE, None).items():
        archive = tmp_path / f"{image}.tar"
        app_images.save(name, archive)
        node.load_image(archive)
    released = following.repository.push()
    following.reconcile(APPS)
    following.healthy(released)
    for deployment in (API, WORKER):
        (container,) = objects.get(deployment)["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{RELEASE}")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (f"{OVERLAY}/kustomization.yaml", "- path: api-replicas.yaml", "- path: none.yaml", "none.yaml"),
        ("kustomize/base/keda/scaled-object.yaml", "maxReplicaCount: 30", "maxReplicaCount: 0", "(?i)maxReplicaCount"),
    ],
    ids=["does not build", "refused by KEDA"],
)
def test_broken_commit_changes_nothing_before_or_after_its_revert(
    following: Following, file: str, old: str, new: str, reason: str
) -> None:
    before = running()
    following.repository.edit(file, old, new)
    broken = following.repository.commit("Broken")
    try:
        following.reconcile(APPS)
        condition = following.condition()
        assert condition["status"] == "False"
        assert re.search(reason, condition["message"])
        assert running() == before
    finally:
        following.repository.git("revert", "--no-edit", broken)
        reverted = following.repository.push()
        following.reconcile(APPS)
        following.healthy(reverted)
    assert running() == before


def test_manual_edit_of_the_overlay_is_undone(following: Following) -> None:
    assert by_hand(SCALER, {"maxReplicaCount": 7})["maxReplicaCount"] == 7
    following.reconcile(APPS)
    assert objects.get(SCALER)["spec"]["maxReplicaCount"] == 30


def test_manual_edit_of_a_chart_object_is_undone(following: Following) -> None:
    assert by_hand(SERVICE, {"externalTrafficPolicy": "Local"})["externalTrafficPolicy"] == "Local"
    following.reconcile("helmrelease/nginx-ingress", namespace="nginx")
    assert objects.get(SERVICE)["spec"]["externalTrafficPolicy"] == "Cluster"
