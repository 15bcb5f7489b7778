"""Runs NGINX in front of the API as a child process, with the settings of helm-releases/nginx.yaml and the Ingress."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ops.apt import apt_install
from ops.command import ROOT
from ops.files import private_folder, write_private
from ops.servers.child import Child
from ops.servers.ports import free_ports, is_open
from ops.servers.programs import find

PROGRAM = "nginx"
PACKAGE = "nginx-light"
RELEASE = ROOT / "helm-releases/nginx.yaml"
INGRESS = ROOT / "kustomize/base/ingress/ingress.yaml"
START_DEADLINE_S = 20.0
# More than uvicorn's default and Locust's bursts: a full backlog drops SYNs, which clients retry after a second.
BACKLOG = 4096


class Nginx:
    """NGINX with one worker process on a loopback port, as a load balancer of API processes on `upstream_ports`.

    Installs NGINX if it is missing; raises Unusable if it cannot be installed.
    """

    def __init__(
        self, folder: Path, upstream_ports: Sequence[int], *, open_files: int, logs: Path | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.url = f"http://127.0.0.1:{(port := free_ports(1)[0])}"
        self._port = port
        ensure()
        configuration = private_folder(self.folder) / "nginx.conf"
        write_private(configuration, _configuration(self.folder, port, upstream_ports, open_files))
        command = [str(find(PROGRAM)), "-e", "stderr", "-p", str(self.folder), "-c", str(configuration)]
        self.node = Child("NGINX", command, log=(logs or self.folder) / "nginx.log", env=dict(os.environ))

    def start(self) -> None:
        """Start NGINX, and wait until it listens. Raises Unusable if it does not."""
        self.node.start()
        self.node.ready(lambda: is_open(self._port), START_DEADLINE_S)

    def stop(self) -> None:
        """Stop NGINX and its worker process."""
        self.node.stop()


def ensure() -> None:
    """Install NGINX if it is missing. Raises Unusable if it cannot be installed."""
    if find(PROGRAM) is None:
        apt_install([PACKAGE])


def settings() -> dict[str, str]:
    """The controller's settings of the API's Ingress, by name: its annotations override the release's entries."""
    *_, release = yaml.safe_load_all(RELEASE.read_text())
    entries: dict[str, str] = release["spec"]["values"]["controller"]["config"]["entries"]
    annotations: dict[str, Any] = yaml.safe_load(INGRESS.read_text())["metadata"]["annotations"]
    return entries | {name.removeprefix("nginx.org/"): value for name, value in annotations.items()}


def _directives(given: dict[str, str], *names: str) -> list[str]:
    switches = {"true": "on", "false": "off"}
    return [f"{name.replace('-', '_')} {switches.get(given[name], given[name])};" for name in names]


def _configuration(folder: Path, port: int, upstream_ports: Sequence[int], open_files: int) -> str:
    given = settings()
    temporary = [f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    lines = [
        "daemon off;",
        "worker_processes 1;",
        *(["user root;"] if os.geteuid() == 0 else []),  # otherwise the worker cannot write to the folder
        f"pid {folder}/nginx.pid;",
        "error_log stderr warn;",
        f"worker_rlimit_nofile {open_files};",
        "events {",
        *_directives(given, "worker-connections"),
        "}",
        "http {",
        "access_log off;",
        *temporary,
        *_directives(given, "keepalive-timeout", "keepalive-requests", "client-max-body-size"),
        "upstream api {",
        *(f"server 127.0.0.1:{upstream};" for upstream in upstream_ports),
        "keepalive 1024;",  # of one worker process, in front of several APIs: no load opens a connection per request
        *_directives(given, "keepalive-requests"),
        "}",
        "server {",
        f"listen 127.0.0.1:{port} backlog={BACKLOG};",
        "location = /metrics { return 404; }",
        "location = /readyz { return 404; }",
        "location = /healthz { return 404; }",
        "location / {",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        *_directives(given, "proxy-connect-timeout", "proxy-read-timeout", "proxy-buffering"),
        "proxy_pass http://api;",
        "}",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"
