"""Serves what a cluster takes from the internet elsewhere: `python -m tests.e2e.platform.serve FOLDER`.

    :5000   Debian's docker-registry, for charts
    :8000   FOLDER/charts, a chart repository, and FOLDER/git, bare git repositories to pull and to push

On every address: it runs in the network of the cluster of tests/e2e/cluster, which nobody else sees, and ends with it.
"""

import os
import signal
import sys
from pathlib import Path

import yaml

from deploy.run import command_line
from local.child import Child
from local.programs import apt_install, find
from tests.e2e.platform import web

REGISTRY_PORT = 5000
WEB_PORT = 8000


def main() -> None:
    """Serve until somebody ends it."""
    folder = Path(sys.argv[1]).absolute()
    (folder / "git").mkdir(parents=True, exist_ok=True)
    registry = _registry(folder)
    registry.start()
    try:
        web.server("", WEB_PORT, folder).serve_forever()
    finally:
        registry.stop()


def _registry(folder: Path) -> Child:
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
    http = {"addr": f":{REGISTRY_PORT}"}
    configuration = folder / "registry.yaml"
    configuration.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": http}))
    command: list[str | Path] = ["docker-registry", "serve", configuration]
    return Child("docker-registry", command, log=folder / "registry.log", env=os.environ)


def ensure() -> None:
    """Install what this needs, while there is still a network."""
    if find("docker-registry") is None:
        apt_install(["docker-registry"])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the registry ends with us
    command_line(main)
