"""A real nginx with a configuration of the stand-in ingress controller, with its own ports and folder."""

import functools
import os
import re
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import pytest

from minicluster.stand_ins.ingress_controller import nginx_conf
from ops.servers import debian, newer
from ops.servers.child import Child, until
from ops.servers.ports import free_ports, is_open
from ops.servers.programs import find
from ops.tools import cache
from tests.harness.servers import given_root

# The first version with keepalive_min_timeout, which helm-releases/nginx.yaml sets.
OLDEST = (1, 27, 4)
TIMEOUT_S = 20.0


def command() -> list[str]:
    """Return the command of an nginx that is new enough: from the root of `make test-brokers`, else from this machine.

    Skips if there is none, in CI too: only `make test-brokers` builds that root file system.
    """
    if root := given_root():
        return _in(root)
    found = find("nginx")
    if found and _version([str(found)]) >= OLDEST:
        return [str(found)]
    kept = cache() / debian.name(newer.SUITE, newer.PACKAGES)
    if not kept.exists():
        pytest.skip(
            f"needs nginx {'.'.join(map(str, OLDEST))} or newer: `python -m ops.servers.newer` makes one, as root"
        )
    return _in(kept)


@functools.cache
def _in(root: Path) -> list[str]:
    """Run the program with the loader of its root file system, which needs neither chroot nor root."""
    (loader,) = root.glob("usr/lib/*/ld-linux-*.so.*")
    return [str(loader), "--library-path", str(loader.parent), str(root / "usr/sbin/nginx")]


def _version(program: list[str]) -> tuple[int, ...]:
    done = subprocess.run([*program, "-v"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return tuple(int(part) for part in re.findall(r"\d+", done.stderr)[:3])


class Nginx:
    """A context manager that runs nginx; `http` and `https` are its addresses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip((nginx_conf.HTTP, nginx_conf.HTTPS, nginx_conf.READY), free_ports(3), strict=True))
        self.http = f"127.0.0.1:{self._ports[nginx_conf.HTTP]}"
        self.https = f"127.0.0.1:{self._ports[nginx_conf.HTTPS]}"
        self._config = folder / "nginx.conf"
        line = [*command(), "-e", "stderr", "-p", str(folder), "-c", str(self._config), "-g", "daemon off;"]
        self._child = Child("nginx", line, log=folder / "nginx.log", env=dict(os.environ))

    def write(self, text: str) -> Self:
        """Write the configuration, with the ports and the folder of this nginx."""
        user = "user root;\n" if os.geteuid() == 0 else ""  # other users may not write into the folder
        text = re.sub(r"listen (\d+)", lambda match: f"listen 127.0.0.1:{self._ports[int(match[1])]}", text)
        self._config.write_text(user + text.replace("/tmp/", f"{self._folder}/"))  # noqa: S108 - the pod's /tmp
        return self

    def __enter__(self) -> Self:
        self._child.start()
        try:
            self._child.ready(lambda: is_open(self._ports[nginx_conf.READY]), TIMEOUT_S)
        except BaseException:
            self._child.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._child.stop()

    def reload(self) -> str:
        """Reload the configuration, and return the log lines of the reload."""
        seen = len(self.log())
        self._child.signal(signal.SIGHUP)
        decided = re.compile(r"start worker process \d+|\[emerg\]")
        until(lambda: decided.search(self.log()[seen:]) is not None, TIMEOUT_S, "the reload")
        return self.log()[seen:]

    def log(self) -> str:
        return (self._folder / "nginx.log").read_text()


class Backend:
    """Takes the API's place: answers each request with the headers that it received."""

    def __enter__(self) -> Self:
        class Echo(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = "".join(f"{name}: {value}\n" for name, value in self.headers.items()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        self._server.daemon_threads = True  # nginx keeps its connections open
        self._server.block_on_close = False
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def slice(self) -> dict[str, Any]:
        """Return its EndpointSlice."""
        return {
            "metadata": {"namespace": "fastapi", "labels": {"kubernetes.io/service-name": "api"}},
            "ports": [{"name": "http", "port": self.port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
