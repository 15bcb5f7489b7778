"""End-to-end tests on an existing cluster, started as its owner starts them: by `make e2e` with a kubectl context.

The cluster is that of the other tests; a script stands in for kind. As this cluster reaches no registry, PLATFORM
names the stand-in charts and BASE the local base image.
"""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from minicluster import app_images
from minicluster.layout import NODE_ADDRESS
from minicluster.lifecycle import Minicluster
from minicluster.stand_ins import installation
from ops import cluster
from ops.command import ROOT, output
from ops.tools import kubectl
from tests.e2e import existing, objects
from tests.e2e.provider import Provider
from tests.e2e.system import System

pytestmark = pytest.mark.usefixtures("unmeasured")
CONTEXT = "kind-mine"
# these tests change nothing in the cluster
PART = "network"
KIND = """#!/bin/sh
test "$1 $2 $4" = "load image-archive --name=mine" || exit 2
basename "$3" >> "$(dirname "$0")/loaded"
exec {load} "$3"
"""
SESSION_TIMEOUT_S = 600
TIMEOUT_S = 60


@pytest.fixture
def node(provider: Provider, running: System) -> Minicluster:  # noqa: ARG001 - deploys the system into the cluster
    """The minicluster of these tests, with a running system."""
    if not isinstance(provider, Minicluster):
        pytest.skip("This session already uses an existing cluster.")
    return provider


@pytest.fixture
def kubeconfig(node: Minicluster, tmp_path: Path) -> Path:  # noqa: ARG001 - sets KUBECONFIG
    """The owner's kubeconfig; its current context is another cluster."""
    config = json.loads(cluster.ask("config", "view", "--raw", "--minify", "--output=json"))
    config["contexts"][0]["name"] = CONTEXT
    config["clusters"].append({"name": "other", "cluster": {"server": "http://127.0.0.1:1"}})
    config["contexts"].append({"name": "other", "context": {"cluster": "other"}})
    config["current-context"] = "other"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def kind(node: Minicluster, tmp_path: Path) -> Path:
    """A stand-in for `kind` that imports images and writes the names of their archives to the file `loaded`."""
    path = tmp_path / "bin" / "kind"
    path.parent.mkdir()
    path.write_text(KIND.format(load=shlex.join(node.inside("ctr", "--namespace=k8s.io", "images", "import"))))
    path.chmod(0o755)
    return path


@pytest.fixture
def platform_folder(node: Minicluster, tmp_path: Path) -> Path:
    """The platform's manifests, with chart URLs that this machine can reach."""
    rendered = output(kubectl(), "kustomize", ROOT / installation.PLATFORM, timeout_s=TIMEOUT_S)
    folder = tmp_path / "platform"
    folder.mkdir()
    (folder / "all.yaml").write_text(rendered.replace(f"//{NODE_ADDRESS}:", f"//{node.address}:"))
    (folder / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    return folder


def session(kind: Path, **told: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `make e2e` of PART as a person would: variables on the command line, no E2E_ variables of this session."""
    command = ["make", "e2e", f"E2E={PART}", *(f"{name}={value}" for name, value in told.items())]
    machine = {name: value for name, value in os.environ.items() if not name.startswith("E2E_")}
    environment = machine | {"PATH": f"{kind.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SESSION_TIMEOUT_S, check=False, cwd=ROOT
    )


def pods() -> set[str]:
    """Return the UIDs of the pods of the platform and the system."""
    names = (objects.RABBITMQ, objects.KEDA, objects.API, objects.RECORDER)
    return {pod["metadata"]["uid"] for name in names for pod in objects.pods(name)}


def test_session_without_confirmation_is_refused_before_any_test(kubeconfig: Path, kind: Path) -> None:
    done = session(kind, KUBECONFIG=kubeconfig, E2E_CONTEXT=CONTEXT)
    assert done.returncode != 0
    assert done.stderr.startswith(f"ERROR: The cluster of {CONTEXT} has a system already")
    assert "test session" not in done.stdout


def test_session_uses_the_cluster_and_leaves_its_pods_and_files_as_they_were(
    node: Minicluster, kubeconfig: Path, kind: Path, platform_folder: Path
) -> None:
    before, copies = pods(), set(existing.FOLDER.glob("kubeconfig-*"))
    done = session(
        kind, KUBECONFIG=kubeconfig, E2E_CONTEXT=CONTEXT, E2E_CONFIRM=CONTEXT, E2E_ENTRANCE=node.entrance,
        PLATFORM=platform_folder, BASE=app_images.base_name(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"The tests use the cluster of the context {CONTEXT}" in done.stdout
    assert (kind.parent / "loaded").read_text().split() == ["sluice-api.tar", "sluice-worker.tar"]
    assert pods() == before
    assert set(existing.FOLDER.glob("kubeconfig-*")) == copies
