"""Serves what a cluster takes from the internet elsewhere: `python -m tests.e2e.platform.serve HOST FOLDER`.

    oci://HOST:5000/charts/...     Debian's docker-registry with the stand-in charts
    http://HOST:8000/charts/       the chart repository that KEDA comes from
    http://HOST:8000/git/NAME.git  the bare git repositories of FOLDER/git, to pull and to push

FOLDER/charts holds what `charts.package` made before: nothing is built here. It says "serving" when all of them answer,
and ends with SIGTERM. It lives where the cluster's pods reach HOST: in the network of the cluster of tests/e2e/cluster,
which nobody else sees.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import yaml

from deploy.run import command_line, output
from deploy.tools import built
from local.child import Child
from local.programs import apt_install, find
from tests.e2e.platform import web

REGISTRY_PORT = 5000
WEB_PORT = 8000
DEADLINE_S = 30
PUSH_TIMEOUT_S = 60


def main() -> None:
    """Serve until somebody ends it."""
    host, folder = sys.argv[1], Path(sys.argv[2]).absolute()
    (folder / "git").mkdir(parents=True, exist_ok=True)
    output(built("helm"), "repo", "index", folder / "charts", timeout_s=PUSH_TIMEOUT_S)
    registry = _registry(host, folder)
    try:
        for chart in sorted((folder / "charts").glob("*.tgz")):
            where = f"oci://{host}:{REGISTRY_PORT}/charts"
            output(built("helm"), "push", "--plain-http", chart, where, timeout_s=PUSH_TIMEOUT_S)
        server = web.server(host, WEB_PORT, folder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("serving", flush=True)
        threading.Event().wait()
    finally:
        registry.stop()


def _registry(host: str, folder: Path) -> Child:
    if find("docker-registry") is None:
        apt_install(["docker-registry"])
    configuration = folder / "registry.yaml"
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
    http = {"addr": f"{host}:{REGISTRY_PORT}"}
    configuration.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": http}))
    command: list[str | Path] = ["docker-registry", "serve", configuration]
    registry = Child("docker-registry", command, log=folder / "registry.log", env=os.environ)
    registry.start()
    registry.ready(lambda: _answers(host), DEADLINE_S)
    return registry


def _answers(host: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, REGISTRY_PORT)) == 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the registry ends with us
    command_line(main)
