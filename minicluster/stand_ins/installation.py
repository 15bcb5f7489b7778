"""Installs the platform into a cluster: images and volumes in the node, and charts on servers beside the node."""

import os
import socket
import subprocess
import sys

from minicluster.layout import INSIDE, NODE, VOLUME_COUNT, VOLUMES
from minicluster.lifecycle import Minicluster
from minicluster.stand_ins import artifact_server, chart_archives, keda_release, server_image, volumes
from ops.command import ROOT, output, show
from ops.files import append_private
from ops.secrets import listed
from ops.servers.child import until
from ops.tools import built, kubectl

PLATFORM = "minicluster/stand_ins/platform"
# the folder of the artifact server, inside of the cluster's state folder
SERVED = "served"
START_TIMEOUT_S = 30
STEP_TIMEOUT_S = 60
# charts are installed one after the other; RabbitMQ is the slowest on two busy cores
INSTALL_TIMEOUT_S = 900


def install(cluster: Minicluster) -> None:
    """Install all Secrets, RabbitMQ, Redis, NGINX and KEDA. Raises Unusable if a command fails."""
    prepare(cluster)
    show("make", "secrets", timeout_s=INSTALL_TIMEOUT_S, env={"KUBECONFIG": str(cluster.kubeconfig)})
    command = cluster.inside("env", f"--chdir={ROOT}", f"KUBECONFIG={cluster.kubeconfig}", sys.executable)
    show(*command, "-m", "ops.platform", PLATFORM, timeout_s=INSTALL_TIMEOUT_S)


def prepare(cluster: Minicluster) -> None:
    """Provide the images, volumes and charts for `make platform` and Flux."""
    folders = listed(volumes.objects(INSIDE / VOLUMES, NODE, VOLUME_COUNT))
    apply = ("apply", "--server-side", "--filename=-")
    output(kubectl(), f"--kubeconfig={cluster.kubeconfig}", *apply, text=folders, timeout_s=STEP_TIMEOUT_S)
    cluster.ensure_image(server_image.archive(), server_image.names()[0])
    cluster.ensure_image(keda_release.archive(), keda_release.name())
    _serve(cluster)
    _publish(cluster)


def _serve(cluster: Minicluster) -> None:
    """Start the artifact server in the cluster's namespaces, unless it runs already. It ends with the cluster."""
    if _serves(cluster):
        return
    artifact_server.ensure()
    command = cluster.inside("env", f"--chdir={ROOT}", sys.executable, "-m", artifact_server.__name__)
    served = cluster.state / SERVED
    served.mkdir(exist_ok=True)
    with os.fdopen(append_private(cluster.logs / "serve.log"), "ab") as log:
        detached = ["setsid", "--fork", *command, str(served)]
        subprocess.run(detached, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=STEP_TIMEOUT_S)
    until(lambda: _serves(cluster), START_TIMEOUT_S, "the start of the registry")


def _publish(cluster: Minicluster) -> None:
    """Publish the stand-in charts in the chart repository and the registry."""
    folder = cluster.state / SERVED / "charts"
    packed = chart_archives.package(folder)
    output(built("helm"), "repo", "index", folder, timeout_s=STEP_TIMEOUT_S)
    for chart in packed:
        where = f"oci://{cluster.address}:{artifact_server.REGISTRY_PORT}/charts"
        output(built("helm"), "push", "--plain-http", chart, where, timeout_s=STEP_TIMEOUT_S)


def _serves(cluster: Minicluster) -> bool:
    return all(_is_open(cluster.address, port) for port in (artifact_server.REGISTRY_PORT, artifact_server.WEB_PORT))


def _is_open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
