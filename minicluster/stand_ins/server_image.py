"""One image with RabbitMQ, Redis and nginx, from the root file system of a newer Debian suite."""

from pathlib import Path

from minicluster import archives
from ops.servers import debian, newer
from ops.tools import cache, locked

REPOSITORY = "localhost/sluice-platform"
SERVERS = ("rabbitmq", "redis", "nginx")


def archive() -> Path:
    """The path of the archive, which is built if it is not cached. The image has a name for each server."""
    root = newer.ensure()
    path = cache() / f"servers-2-{root.name}.tar"  # increment the number when archives.ABSENT changes
    with locked(path):
        if not path.exists():
            archives.write(path, root, names())
    return path


def names() -> list[str]:
    """The names of the image, one for each server."""
    return [f"{REPOSITORY}/{server}:{tag()}" for server in SERVERS]


def tag() -> str:
    """The tag. It changes with the Debian suite and the packages of the root file system."""
    return debian.name(newer.SUITE, newer.PACKAGES)
