"""Forwards local ports to a Service or to the API server with kubectl, which works with every kind of cluster."""

import re
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from ops.command import Unusable
from ops.tools import kubectl

SAID = re.compile(r"(?:Forwarding from|Starting to serve on) 127\.0\.0\.1:(\d+)")
STOP_TIMEOUT_S = 10


@contextmanager
def forwarded(namespace: str, target: str, port: int) -> Iterator[int]:
    """Forward a local port to `port` of a Service or pod, and yield the local port.

    kubectl forwards to one pod, and stops when that pod ends. Raises Unusable if kubectl cannot forward the port.
    """
    with _serving("port-forward", f"--namespace={namespace}", "--address=127.0.0.1", target, f":{port}") as local:
        yield local


@contextmanager
def api_server() -> Iterator[int]:
    """Yield a local port on which the API server answers plain HTTP, with kubectl's identity.

    Raises Unusable if kubectl cannot start its proxy.
    """
    with _serving("proxy", "--port=0") as local:
        yield local


@contextmanager
def _serving(*arguments: str) -> Iterator[int]:
    with subprocess.Popen([str(kubectl()), *arguments], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        rest: Thread | None = None
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            said = process.stdout.readline()
            found = SAID.match(said)
            if not found:
                raise Unusable(f"`kubectl {' '.join(arguments)}` opened no port; its output was {said.strip()!r}.")
            # kubectl prints a line for each connection, and would block when the pipe is full
            rest = Thread(target=deque, args=(process.stdout, 0), daemon=True)
            rest.start()
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            if rest:
                rest.join(STOP_TIMEOUT_S)
