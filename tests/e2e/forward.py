"""A port of the cluster on this machine, by `kubectl port-forward`, which any kind of cluster has."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.tools import kubectl

SAID = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
STOP_TIMEOUT_S = 10


@contextmanager
def forwarded(namespace: str, target: str, port: int) -> Iterator[int]:
    """The local port that leads to `port` of a Service or pod, as long as that pod lives."""
    command = [str(kubectl()), "port-forward", f"--namespace={namespace}", "--address=127.0.0.1", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = SAID.match(said)
            assert found, f"kubectl port-forward to {target} said {said!r}"
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
