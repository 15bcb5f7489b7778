"""Serves the stand-in charts and git repositories: `python -m minicluster.stand_ins.artifact_server FOLDER`.

    :5000   Debian's docker-registry, for charts
    :8000   FOLDER/charts, a chart repository, and FOLDER/git, bare git repositories for fetch and push

The servers listen on all addresses of the cluster's network namespace, which only this machine can reach.
"""

import os
import signal
import sys
from pathlib import Path

import yaml

from minicluster.stand_ins import web
from ops.apt import apt_install
from ops.command import command_line
from ops.servers.child import Child
from ops.servers.programs import find

REGISTRY_PORT = 5000
WEB_PORT = 8000


def ensure() -> None:
    """Install Debian's docker-registry if it is missing. Call this in the machine's network namespace."""
    if find("docker-registry") is None:
        apt_install(["docker-registry"])


def main() -> None:
    """Serve until SIGTERM."""
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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # runs the `finally` above, which stops the registry
    command_line(main)
