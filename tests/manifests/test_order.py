"""Order of a rollout: the workers before the API, and in the opposite order for a rollback."""

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
def test_deploy_applies_the_chosen_part_first(overlay: str, first: str, expected: tuple[set[str], ...]) -> None:
    objects = rendered(f"kustomize/overlays/{overlay}")
    before, after = in_order(objects, first)
    assert (deployments(before), deployments(after)) == expected
    assert len(before) + len(after) == len(objects)
    assert {each["kind"] for each in after} == {"Deployment"}


def test_flux_applies_workers_and_api_separately_and_each_object_once() -> None:
    workers, api = rendered("clusters/local/workers"), rendered("clusters/local/api")
    assert (deployments(workers), deployments(api)) == (WORKERS, API)
    assert [each["kind"] for each in api] == ["Deployment"]
    whole = rendered("clusters/local/apps")
    assert sorted(map(str, workers + api)) == sorted(map(str, whole))


def test_flux_waits_for_the_workers_before_the_api() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in rendered("clusters/local") if "path" in each["spec"]}
    assert found["api"]["dependsOn"] == [{"name": "apps"}]
    assert found["apps"]["wait"]
    assert (found["apps"]["path"], found["api"]["path"]) == ("./clusters/local/workers", "./clusters/local/api")
