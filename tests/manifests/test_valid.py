"""The manifests in git are valid, and the load overlay differs from the base only in the intended fields."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from minicluster import binaries
from ops import pins
from ops.command import ROOT
from ops.validate import chart_values
from ops.validate.__main__ import findings
from ops.validate.tree import Object, Tree, render

LOAD = "kustomize/overlays/load"
BASE = "kustomize/base"


@pytest.fixture(scope="module")
def tree() -> Tree:
    """All folders of the manifests, rendered."""
    return render(ROOT)


def test_manifests_have_no_findings() -> None:
    assert [str(finding) for finding in findings(ROOT)] == []


def test_minicluster_runs_the_newest_pinned_kubernetes() -> None:
    assert binaries.KUBERNETES_VERSION.startswith(f"{pins.KUBERNETES[-1]}.")


def test_every_folder_is_rendered(tree: Tree) -> None:
    assert set(tree.rendered) == {
        BASE,
        "kustomize/components/small",
        "kustomize/overlays/local",
        LOAD,
        "helm-releases",
        "helm-releases/components/verify",
        "clusters/local",
        "clusters/local/infrastructure",
        "clusters/local/apps",
        "loadtest/cluster-platform",
    }
    assert all(tree.rendered.values())


def test_load_overlay_changes_only_the_intended_fields(tree: Tree) -> None:
    limits = ("key", "rate", "burst", "no-delay", "zone-size", "reject-code", "scale")
    scaler = "ScaledObject celery-workers/celery-worker-scaler"
    found = dict(differences(tree.rendered[BASE], tree.rendered[LOAD]))
    assert {field: values for field, values in found.items() if not is_of_load_tasks(field)} == {
        f"{scaler}: metadata.annotations.sluice/result-bytes": ("1000", "100"),
        f"{scaler}: metadata.annotations.sluice/results-per-s": ("2.4", "4.8"),
        f"{scaler}: spec.maxReplicaCount": (30, 60),
        f"{scaler}: spec.triggers.0.metadata.value": ("1000", "10"),
        f"{scaler}: spec.triggers.1.metadata.value": ("1000", "10"),
        "Deployment fastapi/api: spec.template.spec.containers.0.env.0.value": ("100", "1000000"),
        "Deployment fastapi/api: spec.template.spec.containers.0.env.1.value": ("20000", "200000"),
        "Deployment fastapi/api: spec.template.spec.containers.0.env.2.value": ("INFO", "WARNING"),
        **{
            f"Ingress fastapi/api: metadata.annotations.nginx.org/limit-req-{name}": (annotation(tree, name), None)
            for name in limits
        },
        **{
            f"Deployment {name}.image": (image, f"{image}:0.1.0")
            for name, image in {
                "fastapi/api: spec.template.spec.containers.0": "sluice-api",
                "celery-workers/celery-worker: spec.template.spec.containers.0": "sluice-worker",
                "celery-workers/dead-letter-recorder: spec.template.spec.containers.0": "sluice-worker",
                "celery-workers/dead-letter-recorder: spec.template.spec.containers.1": "sluice-worker",
            }.items()
        },
    }


def is_of_load_tasks(field: str) -> bool:
    """Whether the component loadtest/tasks adds this field: ConfigMaps, and one volume after the base's volumes."""
    return bool(re.match(r"ConfigMap \S+/load-tasks-|Deployment \S+: .*\.volume(s|Mounts)\.2\.", field))


@pytest.mark.parametrize(
    ("deployment", "modules"), [("api", ["contract.py"]), ("celery-worker", ["contract.py", "work.py"])]
)
def test_load_overlay_mounts_the_tasks_of_the_load_test(tree: Tree, deployment: str, modules: list[str]) -> None:
    (each,) = (each for each in tree.objects("Deployment", target=LOAD) if each.name == deployment)
    pod = each.spec["template"]["spec"]
    (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "load-tasks")
    assert mount["mountPath"] == "/app/apps/tasks/load"
    (name,) = (volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "load-tasks")
    (config,) = (each for each in tree.objects("ConfigMap", target=LOAD) if each.name == name)
    assert sorted(config.body["data"]) == modules


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("celery-workers", []),
        ("celery-workers,fastapi", []),
        ("fastapi", ["must name celery-workers too: KEDA would ignore its ScaledObjects"]),
    ],
)
def test_keda_must_watch_every_namespace_with_scaled_objects(tree: Tree, names: str, found: list[str]) -> None:
    keda = next(each for each in tree.objects("HelmRelease", target="helm-releases") if each.name == "keda")
    spec = {**keda.spec, "values": keda.spec["values"] | {"watchNamespace": names}}
    changed = [replace(keda, body={**keda.body, "spec": spec}), *tree.rendered[BASE]]
    findings_ = chart_values.check(Tree(ROOT, {"helm-releases": changed}, []))
    assert [each.message for each in findings_ if "watchNamespace" in each.field] == found


def annotation(tree: Tree, name: str) -> str:
    """The value of a rate limit annotation of the Ingress."""
    ingress = next(tree.objects("Ingress", target=BASE))
    return str(ingress.body["metadata"]["annotations"][f"nginx.org/limit-req-{name}"])


def differences(old: list[Object], new: list[Object]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(field, (old value, new value)) of each field that differs."""
    before, after = (dict(leaf for each in objects for leaf in leaves(each)) for objects in (old, new))
    for field in sorted(before.keys() | after.keys()):
        if before.get(field) != after.get(field):
            yield field, (before.get(field), after.get(field))


def leaves(each: Object) -> Iterator[tuple[str, Any]]:
    """(object and path of the field, value) of each leaf value of an object."""

    def walk(value: object, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                yield from walk(inner, f"{path}.{number}")
        else:
            yield f"{each.title}: {path[1:]}", value

    yield from walk(each.body, "")
