"""Finds the server programs of this machine, or installs them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ops.apt import apt_install
from ops.command import Unusable

# Not on the PATH of everybody, and where Debian keeps the scripts that do not change the user.
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
    """Paths of the programs that servers are started from."""

    rabbitmq_server: Path
    epmd: Path
    redis_server: Path


def ensure() -> Programs:
    """The programs, installed if need be. Unusable, with what to install, if they are missing and we may not."""
    missing = [name for name in PACKAGES if find(name) is None]
    if missing:
        apt_install([PACKAGES[name] for name in missing])
    return Programs(*(_found(name) for name in PACKAGES))


def find(name: str) -> Path | None:
    """The program's path, or None. Debian's raw rabbitmq-server comes before its wrapper, which calls su when root."""
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
