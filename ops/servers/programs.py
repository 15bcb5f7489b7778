"""Finds the server programs on this machine, and installs missing ones."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ops.apt import apt_install
from ops.command import Unusable

# Folders that may be missing from the PATH. The first is where Debian keeps RabbitMQ's scripts that do not call su.
FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)
PACKAGES = {"rabbitmq-server": "rabbitmq-server", "epmd": "erlang-base", "redis-server": "redis-server"}


@dataclass(frozen=True)
class Programs:
    """Paths of the server programs."""

    rabbitmq_server: Path
    epmd: Path
    redis_server: Path


def ensure() -> Programs:
    """Find the programs, and install missing ones. Raises Unusable if they cannot be installed."""
    missing = [name for name in PACKAGES if find(name) is None]
    if missing:
        apt_install([PACKAGES[name] for name in missing])
    return Programs(*(_found(name) for name in PACKAGES))


def find(name: str) -> Path | None:
    """The path of a program, or None.

    RabbitMQ's own scripts are preferred to Debian's wrappers, which call su if the user is root.
    """
    path = os.pathsep.join((FOLDERS[0], os.environ.get("PATH", ""), *FOLDERS[1:]))
    program = shutil.which(name, path=path)
    return Path(program) if program else None


def _found(name: str) -> Path:
    program = find(name)
    if program is None:
        raise Unusable(
            f"{name} is not on the PATH although its package {PACKAGES[name]} is installed: add its folder to PATH."
        )
    return program
