"""`make platform` calls helm with the same charts and values as Flux, from the same files."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import flux
from ops.command import ROOT, Unusable, output
from ops.platform import Release, around, releases
from ops.tools import built, kubectl


def rendered(folder: str) -> dict[str, Release]:
    """Return the releases of a folder by name."""
    text = output(kubectl(), "kustomize", ROOT / folder, timeout_s=60)
    return {each.name: each for each in releases(list(yaml.safe_load_all(text)))}


def test_every_helm_release_is_installed() -> None:
    files = {path.name for path in (ROOT / "helm-releases").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == {"rabbitmq.yaml", "redis.yaml", "nginx.yaml", "keda.yaml"}
    assert set(rendered("helm-releases")) == {"rabbitmq", "redis", "nginx-ingress", "keda"}


def objects(folder: str) -> list[dict[str, Any]]:
    """Return all objects of a folder."""
    return list(yaml.safe_load_all(output(kubectl(), "kustomize", ROOT / folder, timeout_s=60)))


def test_namespaces_priorities_and_policies_are_applied_before_the_charts() -> None:
    kinds = Counter(each["kind"] for each in around(objects("clusters/local/infrastructure")))
    assert kinds == {"Namespace": 3, "PriorityClass": 2, "NetworkPolicy": 9}


def test_secrets_in_git_are_not_applied() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis-auth", "namespace": "data"}}
    assert around([secret]) == []


@pytest.mark.parametrize("overlay", ["local", "load"])
def test_undeploy_keeps_the_objects_of_the_platform(overlay: str) -> None:
    namespaces = {each["metadata"].get("namespace") for each in objects(f"kustomize/overlays/{overlay}")}
    assert namespaces == {"fastapi", "celery-workers", None}
    platform = objects("helm-releases")
    kept = {each["metadata"]["name"] for each in platform if each["kind"] == "NetworkPolicy"}
    assert {"deny-all", "to-dns", "rabbitmq-from-keda", "rabbitmq-peers", "redis-from-api"} <= kept


def test_helm_command_for_a_chart_in_a_registry() -> None:
    assert rendered("clusters/local/infrastructure")["rabbitmq"].helm() == (
        "upgrade",
        "--install",
        "rabbitmq",
        "oci://ghcr.io/cloudpirates-io/helm-charts/rabbitmq",
        "--version=0.21.18",
        "--namespace=data",
        "--values=-",
        "--wait",
        "--timeout=600s",
    )


def test_chart_in_a_repository_is_named_with_its_repository() -> None:
    assert rendered("helm-releases")["keda"].chart == (
        "keda",
        "--repo=https://kedacore.github.io/charts",
        "--version=2.21.0",
    )


def test_chart_in_a_registry_without_tls_uses_plain_http() -> None:
    assert rendered("minicluster/stand_ins/platform")["redis"].chart == (
        "oci://10.244.0.1:5000/charts/redis",
        "--version=0.34.18",
        "--plain-http",
    )


def test_options_of_a_release_are_passed_to_helm() -> None:
    assert rendered("helm-releases")["nginx-ingress"].options == ("--skip-crds", "--skip-schema-validation")


def test_rendered_chart_is_patched_before_waiting() -> None:
    release = rendered("helm-releases")["rabbitmq"]
    assert [target for target, _ in release.patches] == ["statefulset/rabbitmq"]
    assert yaml.safe_load(release.patches[0][1])[0]["value"] == 120
    assert "--wait" not in release.helm()


def test_local_platform_has_one_replica_of_each_server() -> None:
    local = rendered("clusters/local/infrastructure")
    assert local["rabbitmq"].values["replicaCount"] == 1
    assert local["rabbitmq"].patches == ()
    assert local["nginx-ingress"].values["controller"]["replicaCount"] == 1
    assert local["keda"].values["operator"]["replicaCount"] == 1


def test_only_the_load_platform_disables_the_access_log() -> None:
    entries = [
        rendered(folder)["nginx-ingress"].values["controller"]["config"]["entries"].get("access-log-off")
        for folder in ("helm-releases", "clusters/local/infrastructure", "loadtest/cluster-platform")
    ]
    assert entries == [None, None, "true"]


def test_load_platform_changes_one_number_of_the_snippet() -> None:
    """A patch replaces the whole text, which therefore stands in both files."""
    base, load = (
        rendered(folder)["nginx-ingress"].values["controller"]["config"]["entries"]["http-snippets"].splitlines()
        for folder in ("helm-releases", "loadtest/cluster-platform")
    )
    changed = [pair for pair in zip(base, load, strict=True) if pair[0] != pair[1]]
    assert changed == [("limit_conn requests_of_a_key 2000;", "limit_conn requests_of_a_key 16384;")]


def test_null_values_are_passed_to_helm() -> None:
    resources = rendered("clusters/local/infrastructure")["keda"].values["resources"]
    assert resources["operator"]["limits"] == {"cpu": None, "memory": "512Mi", "ephemeral-storage": "128Mi"}


def test_helm_supports_every_option() -> None:
    options = {
        word.partition("=")[0]
        for folder in ("helm-releases", "clusters/local/infrastructure")
        for release in rendered(folder).values()
        for word in release.helm()
        if word.startswith("--")
    }
    text = output(built("helm"), "upgrade", "--help", timeout_s=30)
    assert {option for option in options if f"{option} " not in text} == set()


def test_missing_source_is_named() -> None:
    body = yaml.safe_load((ROOT / "helm-releases/keda.yaml").read_text().split("---")[1])
    with pytest.raises(Unusable, match="There is no HelmRepository keda/kedacore"):
        releases([body])


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://git.example.com/team/sluice.git", "https://git.example.com/team/sluice.git"),
        ("git@git.example.com:team/sluice.git", "ssh://git@git.example.com/team/sluice.git"),
        ("ssh://git@git.example.com:2222/sluice", "ssh://git@git.example.com:2222/sluice"),
    ],
)
def test_flux_gets_the_url_of_the_clones_origin(origin: str, url: str) -> None:
    assert flux.git_url(origin) == url
    source = next(each for each in flux.objects(url, "trunk") if each["kind"] == "GitRepository")
    assert (source["spec"]["url"], source["spec"]["ref"]) == (url, {"branch": "trunk"})


@pytest.mark.parametrize(
    "origin", ["http://git.example.com/team/sluice.git", "http://bob:a-token@git.example.com/a.git"]
)
def test_flux_refuses_a_plain_http_url(origin: str) -> None:
    with pytest.raises(Unusable, match="HTTPS or SSH"):
        flux.git_url(origin)


def test_flux_refuses_a_local_folder(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="Flux cannot reach"):
        flux.git_url(str(tmp_path))


def test_flux_refuses_a_url_with_a_credential() -> None:
    with pytest.raises(Unusable, match="contains a credential") as refused:
        flux.git_url("https://bob:a-token@git.example.com/team/sluice.git")
    assert "a-token" not in str(refused.value)
