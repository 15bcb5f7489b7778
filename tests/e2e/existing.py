"""An existing cluster, named by its kubectl context: kind, k3d or docker-desktop."""

import os
from pathlib import Path

import httpx

from ops.command import ROOT, Unusable, output, show
from ops.files import write_private
from ops.servers.child import until
from ops.tools import kubectl

FOLDER = ROOT / ".local" / "e2e"
# One file per process: two sessions in one clone may use different clusters.
KUBECONFIG = FOLDER / f"kubeconfig-{os.getpid()}"
# a namespace of every installed system
OCCUPIED = "celery-workers"
TIMEOUT_S = 60
LOAD_TIMEOUT_S = 600
INSTALL_TIMEOUT_S = 900
ENTRANCE_TIMEOUT_S = 60


class Existing:
    """`start` refuses a cluster that is not for tests before it changes anything. `stop` leaves the cluster running."""

    hpa_sync_s = 15.0  # Kubernetes' default; the API does not show the actual value

    def __init__(self, context: str) -> None:
        self.context = context
        # docker-desktop and k3d publish a LoadBalancer here; with kind the address depends on the cluster's settings
        self.entrance = os.environ.get("E2E_ENTRANCE", "http://localhost")

    def __str__(self) -> str:
        return f"the cluster of the context {self.context}, as E2E_CONTEXT says"

    def start(self) -> Path:
        """Check that tests may use the cluster; returns the path of a kubeconfig with a copy of its context."""
        self._loading(Path())
        # a copy, so that the tests stay on this cluster if the owner switches the current context
        view = ("config", "view", "--raw", "--minify", "--flatten", f"--context={self.context}")
        text = output(kubectl(), *view, timeout_s=TIMEOUT_S)
        KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
        write_private(KUBECONFIG, text)
        self._check_allowed()
        return KUBECONFIG

    def load_image(self, archive: Path) -> None:
        """Import the images of a docker-archive with the program that made the cluster."""
        show(*self._loading(archive), timeout_s=LOAD_TIMEOUT_S)

    def install_platform(self) -> None:
        """Install every Secret, RabbitMQ, Redis, NGINX and KEDA from the real charts."""
        for verb in ("secrets", "platform"):
            show("make", verb, timeout_s=INSTALL_TIMEOUT_S, env={"KUBECONFIG": str(KUBECONFIG)})

    def stop(self) -> None:
        """Remove the copy of the kubeconfig."""
        KUBECONFIG.unlink(missing_ok=True)

    def _loading(self, archive: Path) -> tuple[str, ...]:
        """Return the command that imports images into the nodes. Unusable if this kind of cluster is unknown."""
        kind, _, name = self.context.partition("-")
        if kind == "kind":
            return "kind", "load", "image-archive", str(archive), f"--name={name}"
        if kind == "k3d":
            return "k3d", "image", "import", str(archive), f"--cluster={name}"
        if self.context == "docker-desktop":
            return "docker", "load", f"--input={archive}"
        raise Unusable(
            f"Nobody knows how images get into the cluster of {self.context}: use kind, k3d or docker-desktop."
        )

    def _check_allowed(self) -> None:
        """Unusable if the cluster has a system, which the tests would disrupt, and its owner has not confirmed."""
        ask = ("get", "namespace", OCCUPIED, "--ignore-not-found", "--output=name")
        there = output(kubectl(), f"--kubeconfig={KUBECONFIG}", *ask, timeout_s=TIMEOUT_S)
        if there and os.environ.get("E2E_CONFIRM") != self.context:
            raise Unusable(
                f"The cluster of {self.context} has a system already, which the tests would change, kill and not "
                f"restore: set E2E_CONFIRM={self.context} to allow this."
            )


def check_entrance(url: str) -> None:
    """Wait until NGINX answers at the cluster's entrance. Unusable if it does not."""
    try:
        until(lambda: _is_nginx(url), ENTRANCE_TIMEOUT_S, "NGINX")
    except TimeoutError:
        raise Unusable(
            f"NGINX does not answer at {url}: name its address by E2E_ENTRANCE=..., or make the cluster "
            "so that it is there, as docs/deploy.md says."
        ) from None


def _is_nginx(url: str) -> bool:
    try:
        return str(httpx.get(url).headers.get("Server")).startswith("nginx")
    except httpx.HTTPError:
        return False
