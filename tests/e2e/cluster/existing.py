"""A cluster that somebody already has, by its kubectl context: kind, k3d, docker-desktop, or any other."""

import os
from pathlib import Path

from deploy.run import ROOT, Unusable, output, show
from deploy.tools import kubectl

KUBECONFIG = ROOT / ".local" / "e2e" / "kubeconfig"
TIMEOUT_S = 60
LOAD_TIMEOUT_S = 600


class Existing:
    """Said aloud before anything is touched; `stop` leaves it running."""

    def __init__(self, context: str) -> None:
        self.context = context
        # docker-desktop and k3d give a LoadBalancer this address; kind gives it what its own configuration says
        self.entrance = os.environ.get("E2E_ENTRANCE", "http://localhost")

    def start(self) -> Path:
        print(f"The tests use the cluster of the context {self.context}, as E2E_CONTEXT says.", flush=True)
        # a file of its own, so that a context which is switched meanwhile does not send the tests elsewhere
        view = ("config", "view", "--raw", "--minify", "--flatten", f"--context={self.context}")
        text = output(kubectl(), *view, timeout_s=TIMEOUT_S)
        KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
        KUBECONFIG.touch(mode=0o600)
        KUBECONFIG.write_text(text)
        output(kubectl(), f"--kubeconfig={KUBECONFIG}", "get", "--raw=/readyz", timeout_s=TIMEOUT_S)
        return KUBECONFIG

    def load_image(self, archive: Path) -> None:
        kind, _, name = self.context.partition("-")
        if kind == "kind":
            show("kind", "load", "image-archive", archive, f"--name={name}", timeout_s=LOAD_TIMEOUT_S)
        elif kind == "k3d":
            show("k3d", "image", "import", archive, f"--cluster={name}", timeout_s=LOAD_TIMEOUT_S)
        elif self.context == "docker-desktop":
            show("docker", "load", f"--input={archive}", timeout_s=LOAD_TIMEOUT_S)
        else:
            raise Unusable(
                f"Nobody knows how images get into the cluster of {self.context}: use kind, k3d or docker-desktop."
            )

    def stop(self) -> None:
        """It is not ours to stop; only our copy of its credentials goes."""
        KUBECONFIG.unlink(missing_ok=True)
