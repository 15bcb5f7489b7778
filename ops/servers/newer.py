"""Newer servers beside the machine's own: RabbitMQ 4.3 or later (and Redis 8, nginx 1.30), in a root file system.

The integration tests start its RabbitMQ by chroot; minicluster makes an image of it.
"""

import contextlib
import sys
from pathlib import Path

from ops.command import command_line
from ops.servers import debian

SUITE = "forky"
# python3 runs minicluster/stand_ins/ingress_controller beside nginx
PACKAGES = ("rabbitmq-server", "redis-server", "nginx", "python3", "ca-certificates")


def ensure() -> Path:
    """The root file system, built if need be. Unusable if it cannot be built here."""
    return debian.root(SUITE, PACKAGES)


def main() -> None:
    """Print the path of the root file system, and nothing else, to standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        root = ensure()
    print(root)


if __name__ == "__main__":
    command_line(main)
