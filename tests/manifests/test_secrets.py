"""The Secrets: their contents, their stability over repeated runs, and their encryption in git."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from apps.contract import redis_users, topology
from apps.contract.settings import ApiSettings, RecorderSettings, RequeueSettings, WorkerSettings, load
from ops import sops
from ops.command import ROOT, Unusable, output
from ops.credentials import PLACES, Credentials
from ops.secrets import BROKER, REDIS, contents, key_of, manifests, namespaces
from ops.tools import kubectl
from ops.validate import network
from ops.validate.__main__ import findings
from ops.validate.tree import render

OF_WORKERS = ("worker", "recorder", "tool")
SUM = "sluice/credentials-sha256"


def test_second_run_keeps_every_credential() -> None:
    made = manifests(Credentials())
    assert manifests(Credentials.from_secrets(made)) == made


def test_credentials_of_two_clusters_differ() -> None:
    one, other = asdict(Credentials()), asdict(Credentials())
    assert set(one) == set(PLACES)
    assert not set(one.values()) & set(other.values())


def test_lost_secret_is_replaced_and_the_others_are_kept() -> None:
    made = {key_of(each): each for each in manifests(Credentials())}
    del made["celery-workers", "rabbitmq-keda"]
    again = {key_of(each): each for each in manifests(Credentials.from_secrets(made.values()))}
    assert {key for key in again if again[key] != made.get(key)} == {
        ("celery-workers", "rabbitmq-keda"),
        ("data", "rabbitmq-definitions"),
    }


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        (("fastapi", "api"), ApiSettings),
        (("celery-workers", "worker"), WorkerSettings),
        (("celery-workers", "recorder"), RecorderSettings),
        (("celery-workers", "tool"), RequeueSettings),
    ],
)
def test_processes_can_start_with_their_secret(
    place: tuple[str, str], settings: type[ApiSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in contents(Credentials())[place].items():
        monkeypatch.setenv(name, value)
    read = load(settings)
    assert read.celery_broker_url.get_secret_value().endswith("@rabbitmq.data.svc:5672/%2F")


def test_definitions_contain_the_users_of_the_urls() -> None:
    credentials = Credentials()
    held = contents(credentials)
    document = json.loads(held["data", "rabbitmq-definitions"]["defs.json"])
    assert {user["name"] for user in document["users"]} == {*topology.USERS, "admin"}
    assert credentials.broker_password_admin == held["data", "rabbitmq-auth"]["password"]
    assert all(len(base64.b64decode(user["password_hash"])) == 4 + 32 for user in document["users"])


def test_namespaces_are_those_of_the_secrets() -> None:
    assert {each["metadata"]["name"] for each in namespaces()} == {
        namespace for namespace, _ in contents(Credentials())
    }


def test_network_policies_allow_the_connections_of_the_urls() -> None:
    for address, pod in ((BROKER, network.RABBITMQ), (REDIS, network.REDIS)):
        port = int(address.rpartition(":")[2])
        for source in (network.API, network.WORKER, network.RECORDER):
            assert (source, pod, network.TCP, port) in network.FLOWS


def test_redis_acl_contains_the_users_of_the_urls() -> None:
    held = contents(Credentials())
    users = {line.split()[1]: line for line in held["data", "redis-auth"]["users.acl"].splitlines()}
    assert set(users) == set(redis_users.NAMES)
    for place, user in ((("fastapi", "api"), "api"), *((("celery-workers", each), each) for each in OF_WORKERS)):
        url = urlsplit(held[place]["CELERY_RESULT_BACKEND"])
        assert url.username == user
        assert hashlib.sha256(str(url.password).encode()).hexdigest() in users[user]


def test_shared_redis_password_of_an_earlier_version_is_replaced() -> None:
    """The Redis URLs of earlier versions contain no user name."""
    made = manifests(Credentials())
    url = base64.b64encode(b"redis://:of-everyone@redis.data.svc:6379/0").decode()
    for each in made:
        if "CELERY_RESULT_BACKEND" in each["data"]:
            each["data"]["CELERY_RESULT_BACKEND"] = url
    credentials = Credentials.from_secrets(made)
    assert "of-everyone" not in credentials.redis_passwords.values()
    assert "" not in credentials.redis_passwords.values()


def test_repr_of_credentials_contains_no_value() -> None:
    credentials = Credentials()
    assert not any(value in repr(credentials) for value in asdict(credentials).values())


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that Flux reads, with an age key outside of it."""
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(tmp_path / "home" / "age.key"))
    for folder in ("kustomize", "helm-releases", "clusters"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder)
    return tmp_path / "clone"


def copy_dockerfiles(clone: Path) -> None:
    """Copy the other files that validation reads."""
    for image in ("api", "worker"):
        (clone / "apps" / image).mkdir(parents=True)
        shutil.copy(ROOT / "apps" / image / "Dockerfile", clone / "apps" / image)


def test_git_contains_only_encrypted_secrets(clone: Path) -> None:
    sops.into_git(clone)
    files = sorted(clone.glob("clusters/local/*/secrets/*.sops.yaml"))
    assert len(files) == len(contents(Credentials()))
    for path in files:
        secret = yaml.safe_load(path.read_text())
        assert all(value.startswith("ENC[AES256_GCM,") for value in secret["data"].values())
    assert sops.key_file().stat().st_mode & 0o077 == 0


def test_flux_renders_the_encrypted_secrets(clone: Path) -> None:
    sops.into_git(clone)
    for part, count in (("infrastructure", 3), ("apps", 5)):
        text = output(kubectl(), "kustomize", clone / "clusters" / "local" / part, timeout_s=60)
        secrets = [each for each in yaml.safe_load_all(text) if each["kind"] == "Secret"]
        assert len(secrets) == count
        assert all("sops" in each for each in secrets)


def test_second_run_changes_no_file(clone: Path) -> None:
    sops.into_git(clone)
    before = {path: path.read_text() for path in clone.rglob("*.yaml")}
    sops.into_git(clone)
    assert {path: path.read_text() for path in clone.rglob("*.yaml")} == before


def sums(clone: Path) -> dict[str, str]:
    """Return the checksum of its Secrets for each workload that Flux restarts when they change."""
    tree = render(clone, ["clusters/local/apps", "clusters/local/infrastructure"])
    templates = {each.name: each.spec["template"]["metadata"] for each in tree.objects("Deployment")}
    charts = {each.name: each.spec["values"].get("podAnnotations") for each in tree.objects("HelmRelease")}
    annotations = {name: each.get("annotations") for name, each in templates.items()} | charts
    return {name: each[SUM] for name, each in annotations.items() if each and SUM in each}


def test_flux_restarts_the_workloads_that_read_a_changed_secret(clone: Path) -> None:
    sops.into_git(clone)
    before = sums(clone)
    assert set(before) == {"api", "celery-worker", "dead-letter-recorder", "rabbitmq", "redis"}
    (clone / "clusters/local/infrastructure/secrets/data-redis-auth.sops.yaml").unlink()
    sops.into_git(clone)  # the other passwords stay the same
    after = sums(clone)
    assert {name for name in before if after[name] != before[name]} == {"redis"}
    (clone / "clusters/local/apps/secrets/celery-workers-worker.sops.yaml").unlink()
    sops.into_git(clone)  # creates new passwords of the worker for broker and Redis
    assert {name for name in before if sums(clone)[name] != after[name]} == {"celery-worker", "rabbitmq", "redis"}


def test_checksums_of_the_topology_are_kept(clone: Path) -> None:
    sops.into_git(clone)
    release = next(
        each
        for each in render(clone, ["clusters/local/infrastructure"]).objects("HelmRelease")
        if each.name == "rabbitmq"
    )
    sums = {"sluice/definitions-sha256", "sluice/config-sha256", "sluice/local-config-sha256"}
    assert set(release.spec["values"]["podAnnotations"]) == {SUM, *sums}


def test_secret_with_an_outdated_checksum_is_found(clone: Path) -> None:
    copy_dockerfiles(clone)
    sops.into_git(clone)
    path = clone / "clusters/local/apps/secrets/fastapi-api.sops.yaml"
    path.write_text(path.read_text() + "# edited\n")
    (found,) = findings(clone, ["clusters/local/apps"])
    assert (found.file, found.field) == ("clusters/local/apps/secrets/kustomization.yaml", "text")


def test_plain_text_in_an_encrypted_secret_is_found(clone: Path) -> None:
    copy_dockerfiles(clone)
    sops.into_git(clone)
    path = clone / "clusters/local/apps/secrets/fastapi-api.sops.yaml"
    path.write_text(re.sub("API_KEYS: ENC.*", "API_KEYS: bG9jYWw6aHVudGVyMjI=", path.read_text()))
    path.with_name("kustomization.yaml").write_text(sops.component(path.parent))
    (found,) = findings(clone, ["clusters/local/apps"])
    assert (found.object, found.field) == ("Secret fastapi/api", "data.API_KEYS")


def test_another_age_key_is_refused_before_anything_is_changed(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sops.into_git(clone)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(clone / "other.key"))
    with pytest.raises(Unusable, match="cannot be decrypted with the key"):
        sops.into_git(clone)


def test_encrypted_secrets_are_valid(clone: Path) -> None:
    copy_dockerfiles(clone)
    sops.into_git(clone)
    assert findings(clone, ["clusters/local/apps", "clusters/local/infrastructure"]) == []
