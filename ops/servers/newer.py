"""A root file system with newer servers than the machine's own: RabbitMQ 4.3 or later, Redis 8, nginx 1.30.

The integration tests start its RabbitMQ by chroot, and minicluster builds an image from it.
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
    """The root file system, built at the first use. Raises Unusable if it cannot be built."""
    return debian.root(SUITE, PACKAGES)


def main() -> None:
    """Print only the path of the root file system to standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        root = ensure()
    print(root)


if __name__ == "__main__":
    command_line(main)
