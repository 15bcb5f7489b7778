"""Starts the processes of apps/ as children, knows when each is ready, and restarts them."""

import http.client
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ops.command import ROOT
from ops.servers.child import Child
from ops.servers.endpoints import Folder
from ops.servers.ports import free_ports

# As in apps/api/Dockerfile and apps/worker/Dockerfile; for another commit's processes too.
IMAGE_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"}
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
BACKOFF_MAX_S = 30.0
# As in apps/api/Dockerfile.
UVICORN_OPTIONS = (
    "--timeout-keep-alive", "90", "--timeout-graceful-shutdown", "10",
    "--no-proxy-headers", "--no-server-header", "--http", "apps.api.http:Protocol",
)  # fmt: skip
STEADY_S = 60.0  # a process that lived this long starts again without a wait


class Process:
    """A process that is restarted, after growing waits, when it dies."""

    def __init__(self, child: Child, is_ready: Callable[[], bool]) -> None:
        self.child = child
        self._is_ready = is_ready
        self._backoff_s = 0.5  # doubled before the first use
        self._started_at = 0.0
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start it, without waiting."""
        self._started_at = time.monotonic()
        self.child.start()

    def wait_ready(self) -> None:
        """Unusable, with the end of its log, if it does not become ready in time."""
        self.child.ready(self._is_ready, READY_DEADLINE_S)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        self.child.stop(STOP_DEADLINE_S)

    def keep_alive(self) -> None:
        """Report a process that died, and restart it when its wait is over. To be called often."""
        now = time.monotonic()
        if self.child.alive:
            return
        if self._restart_at is None:
            self._backoff_s = 1.0 if now - self._started_at > STEADY_S else min(self._backoff_s * 2, BACKOFF_MAX_S)
            self._restart_at = now + self._backoff_s
            _say(f"{self.child.name} ended; it starts again in {self._backoff_s:.0f} s. Its log: {self.child.log}")
            self.child.kill()
        elif now >= self._restart_at:
            self._restart_at = None
            self.start()


def recorder(folder: Folder, environment: Mapping[str, str], code: Path = ROOT) -> Process:
    """The recorder, which turns dead letters into FAILURE records; `code` is the folder that has apps/."""
    return _with_file("recorder", [sys.executable, "-m", "apps.worker.recorder"], folder, environment, code)


def worker(folder: Folder, environment: Mapping[str, str], *, name: str = "worker", code: Path = ROOT) -> Process:
    """One Celery worker; of several, each needs a name."""
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "apps.worker.celery_app"]
    command = [*celery, "worker", "--hostname", f"{name}@%h"]
    short = {
        "METRICS_PORT": str(free_ports(1)[0]),
        # After SIGTERM, running tasks have 3 s before they are handed back: Ctrl-C should not take as long as a task.
        "SOFT_SHUTDOWN_S": "3",
    }
    return _with_file(name, command, folder, {**short, **environment}, code)


def api(  # noqa: PLR0913 - the last three by name: for several, and for another commit's
    folder: Folder,
    environment: Mapping[str, str],
    url: str,
    *,
    name: str = "api",
    code: Path = ROOT,
    options: Sequence[str] = UVICORN_OPTIONS,
) -> Process:
    """The HTTP service on a loopback port; ready when it has the broker and Redis. Of several, each needs a name."""
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "uvicorn", "--factory", "apps.api.app:create_app", "--host", "127.0.0.1"]
    command += ["--port", port, *options]
    child = Child(name, command, log=folder.logs / f"{name}.log", env={**IMAGE_ENVIRONMENT, **environment}, cwd=code)
    return Process(child, lambda: is_healthy(url))


def _with_file(name: str, command: list[str], folder: Folder, environment: Mapping[str, str], code: Path) -> Process:
    """A process that makes a file when it is ready."""
    ready, live = (folder.path / f"{name}.{kind}" for kind in ("ready", "live"))
    files = {"READINESS_FILE": str(ready), "LIVENESS_FILE": str(live)}
    environment = {**IMAGE_ENVIRONMENT, **environment, **files}
    child = Child(name, command, log=folder.logs / f"{name}.log", env=environment, cwd=code)
    _remove(ready, live)  # a killed process left them
    return Process(child, ready.exists)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def is_healthy(url: str) -> bool:
    """Whether an API answers, and has the broker and Redis. Of a commit before /healthz, /readyz says the same."""
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


def _say(sentence: str) -> None:
    print(sentence, flush=True)
