"""A cluster that somebody already has, by its kubectl context: kind, k3d or docker-desktop.

`python -m tests.e2e.cluster.existing` says as one sentence, before any test, why that of E2E_CONTEXT cannot be had.
"""

import os
from pathlib import Path

from deploy.run import ROOT, Unusable, command_line, output, show
from deploy.tools import kubectl
from local.files import write_private

FOLDER = ROOT / ".local" / "e2e"
# of this process: two sessions of a clone would send each other to their own cluster
KUBECONFIG = FOLDER / f"kubeconfig-{os.getpid()}"
# a system's workers are in it, whoever installed them
OCCUPIED = "celery-workers"
TIMEOUT_S = 60
LOAD_TIMEOUT_S = 600


class Existing:
    """Refused before anything is touched if it is not one for tests; `stop` leaves it running."""

    hpa_sync_s = 15.0  # Kubernetes' default, which a cluster does not tell

    def __init__(self, context: str) -> None:
        self.context = context
        # docker-desktop and k3d give a LoadBalancer this address; kind gives it what its own configuration says
        self.entrance = os.environ.get("E2E_ENTRANCE", "http://localhost")

    def __str__(self) -> str:
        return f"the cluster of the context {self.context}, as E2E_CONTEXT says"

    def start(self) -> Path:
        self._loading(Path())
        # a file of its own, so that a context which is switched meanwhile does not send the tests elsewhere
        view = ("config", "view", "--raw", "--minify", "--flatten", f"--context={self.context}")
        text = output(kubectl(), *view, timeout_s=TIMEOUT_S)
        KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
        write_private(KUBECONFIG, text)
        self._allowed()
        return KUBECONFIG

    def load_image(self, archive: Path) -> None:
        show(*self._loading(archive), timeout_s=LOAD_TIMEOUT_S)

    def stop(self) -> None:
        """It is not ours to stop; only our copy of its credentials goes."""
        KUBECONFIG.unlink(missing_ok=True)

    def _loading(self, archive: Path) -> tuple[str, ...]:
        """The command that gets images into the nodes."""
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

    def _allowed(self) -> None:
        """Whether tests may have it: they stop workers at their work, and RabbitMQ."""
        ask = ("get", "namespace", OCCUPIED, "--ignore-not-found", "--output=name")
        there = output(kubectl(), f"--kubeconfig={KUBECONFIG}", *ask, timeout_s=TIMEOUT_S)
        if there and os.environ.get("E2E_CONFIRM") != self.context:
            raise Unusable(
                f"The cluster of {self.context} has a system already, which the tests would change, kill and leave "
                f"changed: say E2E_CONFIRM={self.context} if they may."
            )


def main() -> None:
    """Have it and give it back."""
    cluster = Existing(os.environ["E2E_CONTEXT"])
    try:
        cluster.start()
    finally:
        cluster.stop()


if __name__ == "__main__":
    command_line(main)
