"""Starts the processes of apps/ as children, waits until they are ready, and restarts them."""

import http.client
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ops.command import ROOT
from ops.images import uvicorn_options
from ops.servers.child import Child
from ops.servers.endpoints import Folder
from ops.servers.ports import free_ports

# The environment in apps/api/Dockerfile and apps/worker/Dockerfile. Also set for the processes of other commits.
IMAGE_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"}
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0  # the back-off of a process that ran longer than this is reset


class Process:
    """A process that is restarted with exponential back-off when it ends."""

    def __init__(self, child: Child, is_ready: Callable[[], bool]) -> None:
        self.child = child
        self._is_ready = is_ready
        self._backoff_s = 0.5  # doubled before the first use
        self._started_at = 0.0
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start the process without waiting."""
        self._started_at = time.monotonic()
        self.child.start()

    def wait_ready(self) -> None:
        """Wait until the process is ready. Raises Unusable with the end of the log if it does not become ready."""
        self.child.ready(self._is_ready, READY_DEADLINE_S)

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after STOP_DEADLINE_S."""
        self.child.stop(STOP_DEADLINE_S)

    def keep_alive(self) -> None:
        """Report the end of the process, and restart it after the back-off. Call this method in a loop."""
        now = time.monotonic()
        if self.child.alive:
            return
        if self._restart_at is None:
            self._backoff_s = 1.0 if now - self._started_at > STEADY_S else min(self._backoff_s * 2, BACKOFF_MAX_S)
            self._restart_at = now + self._backoff_s
            _print(f"{self.child.name} ended; it is restarted in {self._backoff_s:.0f} s. Its log: {self.child.log}")
            self.child.kill()
        elif now >= self._restart_at:
            self._restart_at = None
            self.start()


def recorder(folder: Folder, environment: Mapping[str, str], code: Path = ROOT) -> Process:
    """The recorder, which writes FAILURE records for dead letters. `code` is the folder that contains apps/."""
    return _with_file("recorder", [sys.executable, "-m", "apps.worker.recorder"], folder, environment, code)


def worker(folder: Folder, environment: Mapping[str, str], *, name: str = "worker", code: Path = ROOT) -> Process:
    """A Celery worker. Several workers need distinct names."""
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "apps.worker.celery_app"]
    command = [*celery, "worker", "--hostname", f"{name}@%h"]
    short = {
        "METRICS_PORT": str(free_ports(1)[0]),
        # After SIGTERM, running tasks are requeued after 3 s, so that Ctrl-C does not wait for the end of a task.
        "SOFT_SHUTDOWN_S": "3",
    }
    return _with_file(name, command, folder, {**short, **environment}, code)


def api(folder: Folder, environment: Mapping[str, str], url: str, *, name: str = "api", code: Path = ROOT) -> Process:
    """The HTTP service at `url`. It is ready when the broker and Redis answer. Several services need distinct names."""
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "uvicorn", "--factory", "apps.api.app:create_app", "--host", "127.0.0.1"]
    command += ["--port", port, *uvicorn_options(code)]
    child = Child(name, command, log=folder.logs / f"{name}.log", env={**IMAGE_ENVIRONMENT, **environment}, cwd=code)
    return Process(child, lambda: is_healthy(url))


def _with_file(name: str, command: list[str], folder: Folder, environment: Mapping[str, str], code: Path) -> Process:
    """A process that creates a file when it is ready."""
    ready, live = (folder.path / f"{name}.{kind}" for kind in ("ready", "live"))
    files = {"READINESS_FILE": str(ready), "LIVENESS_FILE": str(live)}
    environment = {**IMAGE_ENVIRONMENT, **environment, **files}
    child = Child(name, command, log=folder.logs / f"{name}.log", env=environment, cwd=code)
    _remove(ready, live)  # a killed process leaves the files behind
    return Process(child, ready.exists)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def is_healthy(url: str) -> bool:
    """Whether an API answers and reaches the broker and Redis. Commits without /healthz answer this at /readyz."""
    status = _status(url, "/healthz")
    return (_status(url, "/readyz") if status == http.client.NOT_FOUND else status) == http.client.OK


def _status(url: str, path: str) -> int:
    """The HTTP status of a GET; 0 if the server does not answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _print(sentence: str) -> None:
    print(sentence, flush=True)
