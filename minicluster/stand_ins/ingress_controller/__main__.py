"""Runs nginx and updates its configuration: `python -m minicluster.stand_ins.ingress_controller`, in a pod.

Once a second, this program reads the Ingresses of its class and the endpoints of their Services, writes nginx.conf, and
reloads nginx if the text has changed. If nginx cannot parse a new text, nginx keeps the old configuration. If nginx
cannot parse the first text, nginx ends, and this program ends too.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from minicluster.stand_ins.ingress_controller.controller_settings import NotImplementedHereError
from minicluster.stand_ins.ingress_controller.nginx_conf import configuration

POLL_S = 1.0
REQUEST_TIMEOUT_S = 10.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONFIG = Path("/tmp/nginx.conf")  # noqa: S108 - the only writable folder of the pod, which is private


class Cluster:
    """A client of the API server that uses the pod's service account."""

    def __init__(self, ingress_class: str) -> None:
        self._class = ingress_class
        self._context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def ingresses(self) -> list[dict[str, Any]]:
        """The Ingresses of the controller's class."""
        every = self._list("/apis/networking.k8s.io/v1/ingresses")
        return [each for each in every if each["spec"].get("ingressClassName") == self._class]

    def slices(self) -> list[dict[str, Any]]:
        """The EndpointSlices of all Services."""
        return self._list("/apis/discovery.k8s.io/v1/endpointslices")

    def _list(self, path: str) -> list[dict[str, Any]]:
        token = (ACCOUNT / "token").read_text()  # read for each request, because the kubelet renews the token
        request = urllib.request.Request(
            f"https://kubernetes.default.svc{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=self._context) as answer:  # noqa: S310
            items: list[dict[str, Any]] = json.load(answer)["items"]
            return items


def _entries() -> dict[str, str]:
    """The data of the ConfigMap, which is mounted as a file for each key."""
    return {path.name: path.read_text() for path in Path("/config").iterdir() if path.is_file()}


def main() -> None:
    """Run nginx until it ends, and exit with its status."""
    cluster, entries = Cluster(os.environ["INGRESS_CLASS"]), _entries()
    options: dict[str, Any] = {
        "replicas": int(os.environ["REPLICAS"]),
        "empty_host": os.environ.get("ALLOW_EMPTY_INGRESS_HOST") == "true",
    }
    served, told = configuration([], [], entries, **options)
    _log(told)
    CONFIG.write_text(served)
    command = ["nginx", "-e", "stderr", "-c", str(CONFIG), "-g", "daemon off;"]
    nginx = subprocess.Popen(command)
    signal.signal(
        signal.SIGTERM, lambda *_: nginx.send_signal(signal.SIGQUIT)
    )  # on SIGQUIT, nginx finishes open requests before it ends
    while nginx.poll() is None:
        try:
            wanted, said = configuration(cluster.ingresses(), cluster.slices(), entries, **options)
        except (NotImplementedHereError, OSError) as exc:  # URLError is an OSError
            wanted, said = served, [f"the configuration is not changed: {exc}"]
        if wanted != served:
            CONFIG.write_text(wanted)
            nginx.send_signal(signal.SIGHUP)
            served = wanted
            print("reloaded", flush=True)
        if said != told:
            _log(said)
            told = said
        time.sleep(POLL_S)
    sys.exit(nginx.returncode)


def _log(lines: list[str]) -> None:
    print("\n".join(lines), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
