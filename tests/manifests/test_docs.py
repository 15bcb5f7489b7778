"""The commands and versions that the documents and CI name are those that there are."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from apps.contract.tasks import TASKS, input_adapter
from deploy import pins
from deploy.credentials import Credentials
from deploy.run import ROOT
from deploy.secrets import contents
from deploy.validate.agreement import api_routes
from deploy.validate.charts import version_of
from deploy.validate.tree import Tree, render

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
MAKEFILES = "".join((ROOT / name).read_text() for name in ("Makefile", "deploy/targets.mk"))
# what a document may tell a person to run, besides make
PROGRAMS = {".venv/bin/sluice", "make", "kubectl", "curl", "git", "flux", "kind", "k3d", "KEY=$(kubectl"}
CHARTS = {"RabbitMQ": "rabbitmq", "Redis": "redis", "NGINX": "nginx-ingress", "KEDA": "keda"}


def commands(program: str = "") -> Iterator[str]:
    """Every line of every console block that starts with a program."""
    for path in DOCUMENTS:
        for block in re.findall(r"```console\n(.*?)```", path.read_text(), re.DOTALL):
            yield from (line for line in block.splitlines() if line.startswith(program))


@pytest.fixture(scope="module")
def tree() -> Tree:
    """What the documents' commands apply."""
    return render(ROOT, ["kustomize/overlays/local", "kustomize/overlays/load", "helm-releases"])


def test_documents_use_known_programs() -> None:
    assert {line.split()[0] for line in commands() if line.split()[0] not in PROGRAMS} == set()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILES, re.MULTILINE))
    words = [word for line in commands("make") for word in line.partition("#")[0].split()[1:]]
    assert {word for word in words if "=" not in word} - targets == set()
    assert {"secrets", "platform", "deploy", "undeploy", "flux", "images", "release"} <= targets


def test_make_variables_exist() -> None:
    text = MAKEFILES + "".join(path.read_text() for path in (ROOT / "deploy").glob("*.py"))
    words = {word.partition("=")[0] for line in commands("make") for word in line.split() if "=" in word}
    assert {name for name in words if f"$({name})" not in text and f'"{name}"' not in text} == set()


def test_folders_that_make_gets_exist() -> None:
    for line in commands("make"):
        for name, value in re.findall(r"(PLATFORM|OVERLAY)=(\S+)", line):
            folder = f"kustomize/overlays/{value}" if name == "OVERLAY" else value
            assert (ROOT / folder / "kustomization.yaml").exists(), line


def test_what_kubectl_is_asked_for_exists(tree: Tree) -> None:
    secrets = {(*key, name) for key, values in contents(Credentials()).items() for name in values}
    text = "\n".join(commands())
    for namespace, secret, key in re.findall(r"kubectl -n (\S+) get secret (\S+) .*?\.data\.(\w+)", text):
        assert (namespace, secret, key) in secrets
    deployments = {(each.namespace, each.name) for each in tree.objects("Deployment")}
    assert set(re.findall(r"kubectl -n (\S+) exec deploy/(\S+)", text)) <= deployments
    assert "kubectl -n fastapi get secret api" in text


def test_curl_asks_for_what_the_ingress_serves(tree: Tree) -> None:
    paths = set(re.findall(r"http://localhost(/\S*)", "\n".join(commands("curl"))))
    assert paths
    assert paths <= api_routes()
    ingress = next(tree.objects("Ingress"))
    assert paths <= {path["path"] for path in ingress.spec["rules"][0]["http"]["paths"]}


def test_task_of_the_document_is_accepted() -> None:
    (body,) = re.findall(r"-d '(.*?)'", "\n".join(commands("curl")))
    assert input_adapter(TASKS).validate_python(json.loads(body)).task == "task_1"


def test_versions_of_the_table(tree: Tree) -> None:
    versions = {each.name: version_of(tree, each)[2] for each in tree.objects("HelmRelease")}
    text = (ROOT / "docs/deploy.md").read_text()
    rows = re.findall(r"^\| .*?(RabbitMQ|Redis|NGINX|KEDA).* \| `(\S+)` \| (\S+) \|$", text, re.MULTILINE)
    assert {CHARTS[name]: version for name, _, version in rows} == versions
    assert f"Flux, if you like | | {pins.FLUX} |" in text
    assert f"flux install --version=v{pins.FLUX}" in text


def test_versions_of_the_readme() -> None:
    text = "".join(path.read_text() for path in ROOT.glob("README*.md"))
    found = re.findall(r"(RabbitMQ|Redis|NGINX|KEDA) (\d+\.\d+\.\d+)\b(?! listens)", text)
    assert {(CHARTS[name], version) for name, version in found} == {
        (name, version) for name, (version, _) in pins.CHART_KEYS.items()
    }


def test_kubernetes_versions_of_the_documents() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert set(re.findall(r"Kubernetes (\d\.\d+) to (\d\.\d+)", text)) == {pins.KUBERNETES}


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), link


CI = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
STEPS = [step for job in CI["jobs"].values() for step in job["steps"]]


def test_ci_runs_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILES, re.MULTILINE))
    ran = {word for step in STEPS for word in re.findall(r"make (\S+)", step.get("run", ""))}
    assert ran <= targets
    assert "test" in ran


def test_ci_pins_every_action_by_digest() -> None:
    text = (ROOT / ".github/workflows/ci.yaml").read_text()
    lines = [line for line in text.splitlines() if "uses:" in line]
    assert lines
    assert all(re.fullmatch(r"\s+- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in lines)


def test_ci_may_only_read_and_ends() -> None:
    assert CI["permissions"] == {"contents": "read"}
    for job in CI["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert "permissions" not in job
    checkouts = [step for step in STEPS if "actions/checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
