"""A cluster for a person: `python -m tests.e2e.cluster up|down`."""

import os
import sys

from deploy.run import ROOT, command_line
from deploy.tools import kubectl
from tests.e2e.cluster.bare import Bare


def main() -> None:
    """Start it and be in a shell that knows it, or take it away."""
    cluster = Bare(lasting=True)
    if sys.argv[1:] == ["down"]:
        cluster.destroy()
        print("The cluster is gone.")
        return
    kubeconfig = cluster.start()
    print(
        f"The cluster runs until `make cluster-down`. KUBECONFIG={kubeconfig}; its ingress: {cluster.entrance}, which "
        "serves the Ingress's host: curl -H 'Host: localhost'"
    )
    if sys.stdin.isatty():
        shell = os.environ.get("SHELL", "/bin/sh")
        path = f"{kubectl().parent}{os.pathsep}{os.environ['PATH']}"
        os.chdir(ROOT)
        os.execvpe(shell, [shell], os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path})  # noqa: S606 - a person's


if __name__ == "__main__":
    command_line(main)
