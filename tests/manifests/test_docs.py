"""The commands, folders and versions in the documents and in CI exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apps.contract.tasks import input_adapter
from apps.tasks import TASKS
from ops import pins, sops
from ops.command import ROOT
from ops.credentials import Credentials
from ops.secrets import contents, manifests
from ops.validate.agreement import api_routes
from ops.validate.charts import version_of
from ops.validate.tree import Tree, render

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
MAKEFILES = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
# programs that documents may tell a person to run, besides make
PROGRAMS = {".venv/bin/sluice", "make", "kubectl", "curl", "git", "flux", "kind", "k3d", "docker", "rm", "sed", "touch"}
CHARTS = {"RabbitMQ": "rabbitmq", "Redis": "redis", "NGINX": "nginx-ingress", "KEDA": "keda"}


def commands(program: str = "") -> Iterator[str]:
    """Yield every command in console blocks that starts with this program; a backslash joins lines."""
    for path in DOCUMENTS:
        for block in re.findall(r"```console\n(.*?)```", path.read_text(), re.DOTALL):
            lines = (line for line in block.replace("\\\n", "").splitlines() if line and not line.startswith("#"))
            yield from (line for line in lines if line.startswith(program))


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The objects that the documents' commands apply."""
    return render(ROOT, ["kustomize/overlays/local", "kustomize/overlays/load", "helm-releases"])


def test_documents_use_known_programs() -> None:
    assert {line.split()[0] for line in commands() if line.split()[0] not in PROGRAMS} == set()


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILES, re.MULTILINE))
    words = [word for line in commands("make") for word in shlex.split(line, comments=True)[1:]]
    assert {word for word in words if "=" not in word} - targets == set()
    assert {"secrets", "platform", "deploy", "undeploy", "flux", "images", "release"} <= targets


def test_make_variables_in_documents_exist() -> None:
    text = MAKEFILES + "".join(path.read_text() for path in (ROOT / "ops").glob("**/*.py"))
    words = {
        word.partition("=")[0] for line in commands("make") for word in shlex.split(line, comments=True) if "=" in word
    }
    assert {name for name in words if f"$({name})" not in text and f'"{name}"' not in text} == set()


def test_folders_in_make_commands_exist() -> None:
    for line in commands("make"):
        for name, value in re.findall(r"(PLATFORM|OVERLAY)=(\S+)", line):
            folder = f"kustomize/overlays/{value}" if name == "OVERLAY" else value
            assert (ROOT / folder / "kustomization.yaml").exists(), line


def test_objects_in_kubectl_commands_exist(tree: Tree) -> None:
    secrets = {(*key, name) for key, values in contents(Credentials()).items() for name in values}
    text = "\n".join(commands())
    for namespace, secret, key in re.findall(r"kubectl -n (\S+) get secret (\S+) .*?\.data\.(\w+)", text):
        assert (namespace, secret, key) in secrets
    deployments = {(each.namespace, each.name) for each in tree.objects("Deployment")}
    assert set(re.findall(r"kubectl -n (\S+) exec deploy/(\S+)", text)) <= deployments
    assert "kubectl -n fastapi get secret api" in text


def test_paths_in_curl_commands_are_served_by_the_ingress(tree: Tree) -> None:
    paths = set(re.findall(r"http://localhost(/\S*)", "\n".join(commands())))
    assert paths
    assert paths <= api_routes()
    (rule,) = next(tree.objects("Ingress", target="kustomize/overlays/local")).spec["rules"]
    assert rule["host"] == "localhost"
    assert paths <= {path["path"] for path in rule["http"]["paths"]}


def test_patch_in_the_document_sets_the_host(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(# kustomize/overlays/\S+.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    overlay = tmp_path / "kustomize" / "overlays" / "mine"
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    shutil.copytree(tmp_path / "kustomize" / "overlays" / "local", overlay)
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    kustomization["patches"] += yaml.safe_load(text)["patches"]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (ingress,) = render(tmp_path, ["kustomize/overlays/mine"]).objects("Ingress")
    assert [rule["host"] for rule in ingress.spec["rules"]] == ["tasks.example.com"]


def test_task_in_the_document_is_accepted() -> None:
    (command,) = re.findall(r'-d "\$\((.*?)\)"', "\n".join(commands()))
    done = subprocess.run(shlex.split(command), cwd=ROOT, check=True, capture_output=True, text=True, timeout=30)
    assert input_adapter(TASKS).validate_python(json.loads(done.stdout)).task in TASKS


@pytest.mark.parametrize("keys", ["local:abc-_1", "first:abc-_1,second:def"])
def test_documented_post_sends_the_first_key_and_hides_it_from_the_process_list(keys: str, tmp_path: Path) -> None:
    (line,) = (line for line in commands("kubectl") if "| curl" in line)
    stand_ins = {"kubectl": f"echo {keys}", "curl": 'echo "$@" > "$HERE/arguments"; cat > "$HERE/header"'}
    for name, script in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path)}
    subprocess.run(["sh", "-c", line], env=environment, check=True, timeout=30)
    assert (tmp_path / "header").read_text() == "Authorization: Bearer abc-_1\n"
    assert "-H @- " in (tmp_path / "arguments").read_text()
    assert "abc-_1" not in (tmp_path / "arguments").read_text()


def test_removed_files_in_documents_are_generated_files() -> None:
    made = {str(sops.file_of(each, ROOT).relative_to(ROOT)) for each in manifests(Credentials())}
    removed = {line.split()[1] for line in commands("rm ")}
    assert removed
    assert removed <= made


def test_readme_shows_deploy_and_flux() -> None:
    block = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    first_of = {line.partition(" #")[0].strip() for text in block for line in text.splitlines()}
    assert {"make deploy OVERLAY=local", "make secrets FLUX=1", "make flux"} <= first_of
    added = "\n".join(line for line in commands("git add"))
    assert set(re.findall(r"git add (\S+)", added)) == {sops.CLUSTER}


def test_versions_in_the_table_of_charts_are_correct(tree: Tree) -> None:
    versions = {each.name: version_of(tree, each)[2] for each in tree.objects("HelmRelease")}
    text = (ROOT / "docs/deploy.md").read_text()
    rows = re.findall(r"^\| .*?(RabbitMQ|Redis|NGINX|KEDA).* \| `(\S+)` \| (\S+) \|$", text, re.MULTILINE)
    assert {CHARTS[name]: version for name, _, version in rows} == versions
    assert set(re.findall(r"\| `(\S+://\S+)` \|", text)) == {
        each.spec["url"] for kind in ("OCIRepository", "HelmRepository") for each in tree.objects(kind)
    }
    assert f"Flux, if you like | | {pins.FLUX} |" in text
    assert set(commands("flux install")) == {f"flux install --version=v{pins.FLUX}"}


@pytest.mark.parametrize("name", ["rabbitmq", "redis", "nginx", "keda"])
def test_release_links_to_the_values_of_its_chart(name: str) -> None:
    (link,) = re.findall(r"https://github.com/\S+/values.yaml", (ROOT / f"helm-releases/{name}.yaml").read_text())
    version = "5.5.4" if name == "nginx" else pins.CHART_KEYS[name][0]  # NGINX's tags are the controller's
    assert version in link


def test_chart_versions_in_the_readme_are_correct() -> None:
    text = "".join(path.read_text() for path in ROOT.glob("README*.md"))
    found = re.findall(r"(RabbitMQ|Redis|NGINX|KEDA) (\d+\.\d+\.\d+)\b(?! listens)", text)
    assert {(CHARTS[name], version) for name, version in found} == {
        (name, version) for name, (version, _) in pins.CHART_KEYS.items()
    }


def test_kubernetes_versions_in_documents_are_correct() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert set(re.findall(r"Kubernetes (\d\.\d+) to (\d\.\d+)", text)) == {pins.KUBERNETES}
