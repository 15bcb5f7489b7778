"""Build the programs of a cluster, start one and remove it: `python -m minicluster build|up|down`."""

import os
import sys

from minicluster import binaries, prerequisites
from minicluster.lifecycle import Minicluster
from ops.command import ROOT, Unusable, command_line
from ops.tools import kubectl

USAGE = "Use `python -m minicluster up`, `down`, `build` or `build flux`."


def up() -> None:
    """Start a cluster that runs until `down`. In a terminal, open a shell whose KUBECONFIG names it."""
    cluster = Minicluster(lasting=True)
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


def down() -> None:
    """Stop the cluster and remove its files."""
    Minicluster().destroy()
    print("The cluster is gone.")


def build(*, flux: bool) -> None:
    """Build every program that a cluster needs, and Flux's too if `flux` is true."""
    prerequisites.ensure()  # first: it refuses a machine that cannot run a cluster before minutes of building
    binaries.build(flux=flux)


def main() -> None:
    """Run the command that the arguments name."""
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["down"]:
            down()
        case ["build", *names] if names in ([], ["flux"]):
            build(flux=bool(names))
        case _:
            raise Unusable(USAGE)


if __name__ == "__main__":
    command_line(main)
