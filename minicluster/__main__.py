"""Builds the programs of a cluster, starts and removes a cluster: `python -m minicluster build|up|down`."""

import os
import sys

from minicluster import binaries, prerequisites
from minicluster.lifecycle import Minicluster
from ops.command import ROOT, Unusable, command_line
from ops.tools import kubectl

USAGE = "Use `python -m minicluster up`, `down`, `build` or `build flux`."


def up() -> None:
    """Start a cluster that runs until `down`. In a terminal, open a shell with the cluster's KUBECONFIG."""
    cluster = Minicluster(lasting=True)
    kubeconfig = cluster.start()
    print(
        f"The cluster runs until `make cluster-down`. KUBECONFIG={kubeconfig}. Its ingress controller: "
        f"curl -H 'Host: localhost' {cluster.entrance}"
    )
    if sys.stdin.isatty():
        shell = os.environ.get("SHELL", "/bin/sh")
        path = f"{kubectl().parent}{os.pathsep}{os.environ['PATH']}"
        os.chdir(ROOT)
        os.execvpe(shell, [shell], os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path})  # noqa: S606 - a person's


def down() -> None:
    """Stop the cluster and remove its files."""
    Minicluster().destroy()
    print("The cluster is removed.")


def build(*, flux: bool) -> None:
    """Build every program that a cluster needs, and Flux's too if `flux` is true."""
    prerequisites.ensure()  # first, so that a machine that cannot run a cluster is refused before minutes of building
    binaries.build(flux=flux)


def main() -> None:
    """Run the subcommand in the arguments. Raises Unusable if it is unknown."""
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
