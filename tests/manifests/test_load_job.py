"""The Job that runs the load test inside a cluster: its image, its rights and its resources."""

import json
import re
import subprocess
from typing import Any

import yaml

from loadtest.job.image import CONTENT, DOCKERFILE, NAME
from ops.command import ROOT, output
from ops.tools import kubectl, packaged
from ops.validate import policy
from ops.validate.tree import Object, Tree


def objects() -> dict[str, dict[str, Any]]:
    text = output(kubectl(), "kustomize", ROOT / "loadtest" / "job", timeout_s=60)
    return {f"{one['kind']} {one['metadata'].get('namespace', '')}".strip(): one for one in yaml.safe_load_all(text)}


def container() -> dict[str, Any]:
    (found,) = objects()["Job load"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_job_uses_the_built_image() -> None:
    assert NAME.endswith(f"/{container()['image']}")


def test_kubectl_in_the_image_uses_the_service_account_of_the_job() -> None:
    named = re.search(r"KUBECONFIG=/app/(\S+)", (ROOT / DOCKERFILE).read_text())
    assert named is not None
    view = json.loads(
        output(kubectl(), "config", "view", f"--kubeconfig={ROOT / named[1]}", "--output=json", timeout_s=60)
    )
    context = next(one["context"] for one in view["contexts"] if one["name"] == view["current-context"])
    (user,) = (one["user"] for one in view["users"] if one["name"] == context["user"])
    assert user == {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}


def test_job_has_only_rights_to_read() -> None:
    rules = [rule for one in objects().values() for rule in one.get("rules", [])]
    verbs = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert {verb for _, verb in verbs} == {"get", "list", "create"}
    # kubectl needs `create` for both to read the API's counters and RabbitMQ's queues
    assert {resource for resource, verb in verbs if verb == "create"} == {"pods/exec", "pods/portforward"}
    assert all(rule.get("resourceNames") for rule in rules if "secrets" in rule["resources"])


def test_pod_of_the_job_has_resources_and_bounded_disks() -> None:
    job = Object("loadtest/job/job.yaml", objects()["Job load"], "loadtest/job")
    found = [str(each) for each in policy.check(Tree(ROOT, {"loadtest/job": [job]}, []))]
    assert [each for each in found if "resources" in each or "sizeLimit" in each] == []


def test_hadolint_reports_nothing_for_the_job() -> None:
    command = [str(packaged("hadolint")), "--failure-threshold", "style", DOCKERFILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_contains_all_packages_that_the_load_test_imports() -> None:
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    imports = "".join(path.read_text() for path in (ROOT / "loadtest").rglob("*.py"))
    assert {name for name in packages if f"from {name}" in imports} <= set(CONTENT)
