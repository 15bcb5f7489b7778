"""Which version runs first during a rollout: the workers, and on the way back the API."""

from typing import Any

import pytest

from ops.command import ROOT, output
from ops.deploy import in_order
from ops.tools import kubectl
from sluice_planner.kubernetes_objects import documents

WORKERS, API = {"celery-worker", "dead-letter-recorder"}, {"api"}


def rendered(folder: str) -> list[dict[str, Any]]:
    return list(documents(output(kubectl(), "kustomize", ROOT / folder, timeout_s=60)))


def deployments(objects: list[dict[str, Any]]) -> set[str]:
    return {each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"}


@pytest.mark.parametrize("overlay", ["local", "load"])
@pytest.mark.parametrize(("first", "expected"), [("workers", (WORKERS, API)), ("api", (API, WORKERS))])
def test_deploy_applies_one_version_before_the_other(overlay: str, first: str, expected: tuple[set[str], ...]) -> None:
    objects = rendered(f"kustomize/overlays/{overlay}")
    before, after = in_order(objects, first)
    assert (deployments(before), deployments(after)) == expected
    assert len(before) + len(after) == len(objects)
    assert {each["kind"] for each in after} == {"Deployment"}


def test_flux_applies_the_workers_and_then_the_api_and_nothing_twice() -> None:
    workers, api = rendered("clusters/local/workers"), rendered("clusters/local/api")
    assert (deployments(workers), deployments(api)) == (WORKERS, API)
    assert [each["kind"] for each in api] == ["Deployment"]
    whole = rendered("clusters/local/apps")
    assert sorted(map(str, workers + api)) == sorted(map(str, whole))


def test_flux_waits_for_the_workers() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in rendered("clusters/local") if "path" in each["spec"]}
    assert found["api"]["dependsOn"] == [{"name": "apps"}]
    assert found["apps"]["wait"]
    assert (found["apps"]["path"], found["api"]["path"]) == ("./clusters/local/workers", "./clusters/local/api")
