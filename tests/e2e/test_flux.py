"""git push is a deployment: Flux from clusters/local, in a cluster that has nothing but Flux at first."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from deploy import cluster as api
from deploy import images
from deploy.run import ROOT
from local.child import until
from tests.e2e import apps
from tests.e2e.cluster.bare import Bare
from tests.e2e.platform.following import RECONCILE_TIMEOUT_S, Following

APPS = "kustomization/apps"
SCALER = ("scaledobject/celery-worker-scaler", "--namespace=celery-workers")
WORKER = ("deployment/celery-worker", "--namespace=celery-workers")
API = ("deployment/api", "--namespace=fastapi")
MINIMUM = "kustomize/overlays/local/scaled-object-min.yaml"
FIGURES = ROOT / "build" / "e2e" / "flux.json"
# how often clusters/local/source.yaml looks, and time to apply on two busy cores
PUSH_TIMEOUT_S = 60 + 120
RELEASE = "0.2.0"
BUILD_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def following(provider: Bare, tmp_path_factory: pytest.TempPathFactory) -> Following:
    """The cluster, which has come from nothing to a healthy system by `make flux` alone."""
    return Following(provider, tmp_path_factory.mktemp("flux"))


def got(*arguments: str) -> dict[str, Any]:
    """An object."""
    answer: dict[str, Any] = json.loads(api.ask("get", *arguments, "--output=json"))
    return answer


def healthy(following: Following, commit: str) -> None:
    """Wait until the apps are what the commit says, and run."""
    until(lambda: following.applied(APPS, commit), RECONCILE_TIMEOUT_S, f"commit {commit} in the cluster")


def running() -> dict[str, int]:
    """Every pod, and the generation of whatever makes pods: the same as long as nothing was changed."""
    kinds = "deployments.apps,scaledobjects.keda.sh,pods"
    items = [each for where in ("fastapi", "celery-workers") for each in got(kinds, f"--namespace={where}")["items"]]
    return {f"{each['kind']} {each['metadata']['uid']}": each["metadata"].get("generation", 0) for each in items}


def test_apps_come_after_what_they_need(following: Following) -> None:
    assert following.condition(APPS)["status"] == "True"
    ready = [
        condition["lastTransitionTime"]
        for release in got("helmreleases", "--all-namespaces")["items"]
        for condition in release["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    made = [got(*each)["metadata"]["creationTimestamp"] for each in (API, WORKER, SCALER)]
    assert len(ready) == 4
    assert max(ready) <= min(made)


def test_pushed_number_reaches_the_scaler(following: Following) -> None:
    following.repository.edit(
        MINIMUM, "path: /spec/minReplicaCount\n  value: 1", "path: /spec/minReplicaCount\n  value: 2"
    )
    began = time.monotonic()
    following.repository.commit("Two workers at least")
    until(lambda: got(*SCALER)["spec"]["minReplicaCount"] == 2, PUSH_TIMEOUT_S, "the number in the ScaledObject")
    figure = {"push_to_scaled_object_s": round(time.monotonic() - began, 1)}
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figure) + "\n")

    until(lambda: got(*WORKER)["spec"]["replicas"] == 2, RECONCILE_TIMEOUT_S, "the HPA's second replica")
    following.reconcile(APPS)
    assert got(*WORKER)["spec"]["replicas"] == 2  # the HPA's number: git has none, and takes none away


def test_release_rolls_out(following: Following, provider: Bare, tmp_path: Path) -> None:
    following.repository.python("deploy.release", RELEASE, timeout_s=BUILD_TIMEOUT_S, **apps.settings(local_base=True))
    for image, name in images.full_names(RELEASE, None).items():
        apps.save(name, tmp_path / f"{image}.tar")
        provider.load_image(tmp_path / f"{image}.tar")
    released = following.repository.push()
    following.reconcile(APPS)
    healthy(following, released)
    for deployment in (API, WORKER):
        (container,) = got(*deployment)["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{RELEASE}")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "kustomize/overlays/local/kustomization.yaml",
            "path: api-replicas.yaml",
            "path: api-replica.yaml",
            "api-replica.yaml",
        ),
        ("kustomize/base/keda/scaled-object.yaml", "maxReplicaCount: 30", "maxReplicaCount: 0", "(?i)maxReplicaCount"),
    ],
    ids=["does not build", "refused by KEDA"],
)
def test_broken_commit_changes_nothing_until_it_is_reverted(
    following: Following, file: str, old: str, new: str, reason: str
) -> None:
    before = running()
    following.repository.edit(file, old, new)
    broken = following.repository.commit("Broken")
    following.reconcile(APPS)
    until(lambda: following.attempted(APPS, broken), RECONCILE_TIMEOUT_S, "an attempt at the broken commit")
    condition = following.condition(APPS)
    assert condition["status"] == "False"
    assert re.search(reason, condition["message"])
    assert running() == before

    following.repository.git("revert", "--no-edit", broken)
    reverted = following.repository.push()
    following.reconcile(APPS)
    healthy(following, reverted)
    assert running() == before


def test_edit_by_hand_is_undone(following: Following) -> None:
    api.ask(
        "patch", *SCALER, "--type=merge", '--patch={"spec": {"maxReplicaCount": 7}}', "--field-manager=kubectl-edit"
    )
    assert got(*SCALER)["spec"]["maxReplicaCount"] == 7
    following.reconcile(APPS)
    assert got(*SCALER)["spec"]["maxReplicaCount"] == 30


def test_edit_of_a_chart_by_hand_is_undone(following: Following) -> None:
    service = ("service/nginx-ingress-controller", "--namespace=nginx")
    patch = '--patch={"spec": {"externalTrafficPolicy": "Local"}}'
    api.ask("patch", *service, "--type=merge", patch, "--field-manager=kubectl-edit")
    following.reconcile("helmrelease/nginx-ingress", namespace="nginx")
    assert got(*service)["spec"]["externalTrafficPolicy"] == "Cluster"
