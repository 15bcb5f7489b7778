"""A port of the cluster, or its API server, on this machine: by kubectl, which any kind of cluster has."""

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
    """The local port that leads to `port` of a Service or pod, as long as that pod lives. Unusable if none does."""
    with _serving("port-forward", f"--namespace={namespace}", "--address=127.0.0.1", target, f":{port}") as local:
        yield local


@contextmanager
def api_server() -> Iterator[int]:
    """The local port on which the API server answers plain HTTP, as whom kubectl is. Unusable if it does not."""
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
                raise Unusable(f"`kubectl {' '.join(arguments)}` does not serve; it said {said.strip()!r}.")
            # kubectl prints a line for each connection, and hangs when the pipe is full: keep reading it
            rest = Thread(target=deque, args=(process.stdout, 0), daemon=True)
            rest.start()
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            if rest:
                rest.join(STOP_TIMEOUT_S)
