"""Brings the platform into a cluster of the tests, without Flux: `make secrets` and `make platform`.

A cluster that somebody already has gets the real charts; one of our own, which reaches no registry, the stand-ins.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from deploy.run import ROOT, Unusable, output, show
from deploy.secrets import listed
from deploy.tools import built, kubectl
from local.child import until
from local.files import append_private
from tests.e2e.cluster.bare import Bare
from tests.e2e.cluster.layout import INSIDE, NODE, VOLUME_COUNT, VOLUMES
from tests.e2e.cluster.provider import Provider
from tests.e2e.platform import charts, images, keda, serve, volumes

FOLDER = "tests/e2e/platform/bare"
SERVED = "served"
START_TIMEOUT_S = 30
STEP_TIMEOUT_S = 60
# its charts one after the other, RabbitMQ on two busy cores among them
INSTALL_TIMEOUT_S = 900
ENTRANCE_TIMEOUT_S = 60


def install(cluster: Provider, kubeconfig: Path) -> None:
    """RabbitMQ, Redis, NGINX and KEDA, and every Secret."""
    if not isinstance(cluster, Bare):
        _make("secrets", kubeconfig)
        _make("platform", kubeconfig)
        return
    prepare(cluster, kubeconfig)
    _make("secrets", kubeconfig)
    command = cluster.inside("env", f"--chdir={ROOT}", f"KUBECONFIG={kubeconfig}", sys.executable)
    show(*command, "-m", "deploy.platform", FOLDER, timeout_s=INSTALL_TIMEOUT_S)


def prepare(cluster: Bare, kubeconfig: Path) -> None:
    """The images and volumes in the node, and the charts beside it: what `install` needs, and what Flux needs."""
    folders = listed(volumes.objects(INSIDE / VOLUMES, NODE, VOLUME_COUNT))
    apply = ("apply", "--server-side", "--filename=-")
    output(kubectl(), f"--kubeconfig={kubeconfig}", *apply, text=folders, timeout_s=STEP_TIMEOUT_S)
    load(cluster, images.servers(), images.names()[0])
    load(cluster, keda.image(), keda.name())
    serving(cluster)
    publish(cluster)


def load(cluster: Bare, archive: Path, name: str) -> None:
    """Into the node, unless it is there: these names change with what is in the image."""
    there = output(*cluster.inside("ctr", "--namespace=k8s.io", "images", "list", "--quiet"), timeout_s=STEP_TIMEOUT_S)
    if name not in there.split():
        cluster.load_image(archive)


def serving(cluster: Bare) -> None:
    """Start what serves charts and git, unless it runs already. It ends with the cluster."""
    if _serves(cluster):
        return
    serve.ensure()
    command = cluster.inside("env", f"--chdir={ROOT}", sys.executable, "-m", "tests.e2e.platform.serve")
    served = cluster.state / SERVED
    served.mkdir(exist_ok=True)
    with os.fdopen(append_private(cluster.logs / "serve.log"), "ab") as log:
        detached = ["setsid", "--fork", *command, str(served)]
        subprocess.run(detached, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=STEP_TIMEOUT_S)
    until(lambda: _serves(cluster), START_TIMEOUT_S, "the start of the registry")


def publish(cluster: Bare) -> None:
    """Put the stand-in charts where the cluster looks for them."""
    folder = cluster.state / SERVED / "charts"
    packed = charts.package(folder)
    output(built("helm"), "repo", "index", folder, timeout_s=STEP_TIMEOUT_S)
    for chart in packed:
        where = f"oci://{cluster.address}:{serve.REGISTRY_PORT}/charts"
        output(built("helm"), "push", "--plain-http", chart, where, timeout_s=STEP_TIMEOUT_S)


def _serves(cluster: Bare) -> bool:
    return all(_open(cluster.address, port) for port in (serve.REGISTRY_PORT, serve.WEB_PORT))


def _open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def reach(cluster: Provider) -> None:
    """Wait for NGINX. Unusable if it is not where the cluster has its entrance."""
    try:
        until(lambda: _answers(cluster.entrance), ENTRANCE_TIMEOUT_S, "NGINX")
    except TimeoutError:
        raise Unusable(
            f"NGINX does not answer at {cluster.entrance}: name its address by E2E_ENTRANCE=..., or make the cluster "
            "so that it is there, as docs/deploy.md says."
        ) from None


def _answers(url: str) -> bool:
    try:
        return str(httpx.get(url).headers.get("Server")).startswith("nginx")
    except httpx.HTTPError:
        return False


def _make(verb: str, kubeconfig: Path) -> None:
    show("make", verb, timeout_s=INSTALL_TIMEOUT_S, KUBECONFIG=str(kubeconfig))
