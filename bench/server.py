"""The HTTP server processes that are measured."""

import sys
from pathlib import Path
from typing import Self

import psutil

from ops.images import uvicorn_options
from ops.servers.child import Child
from ops.servers.ports import free_ports, is_open
from ops.servers.processes import is_healthy
from tests.harness.system import System

ROOT = Path(__file__).parents[1]


class Server:
    """A uvicorn process with one of the apps on a free port. A context manager starts and ends the process."""

    def __init__(
        self, system: System, name: str, *arguments: str, cwd: Path = ROOT, health: bool = False, **environment: str
    ) -> None:
        (self.port,) = free_ports(1)
        self.name = name
        self._health = health
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = system.key
        env = system.environment("api", PYTHONWARNINGS="ignore", **environment)
        command = [sys.executable, "-m", "uvicorn", *arguments, "--host", "127.0.0.1", "--port", str(self.port)]
        self._child = Child(name, command, log=system.folder / f"{name}.log", env=env, cwd=cwd)

    def __enter__(self) -> Self:
        self._child.start()
        self._child.ready(lambda: is_open(self.port) and self._answers(), 60)
        self._process = psutil.Process(self._child.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def _answers(self) -> bool:
        """Our API answers /healthz with success when it is connected to the broker; before, it would refuse posts."""
        return not self._health or is_healthy(self.url)

    @property
    def cpu_s(self) -> float:
        """CPU time used so far, in seconds."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mb(self) -> float:
        return float(self._process.memory_info().rss / 1e6)

    @property
    def pid(self) -> int:
        return self._child.pid


def others(system: System) -> list[Server]:
    """The servers that ours is compared with. They run without an access log, ours with its log."""
    apps = {
        "empty": ("bench.apps.empty:app",),
        "celery_confirm": ("--factory", "bench.apps.celery_post:confirm"),
        "celery_noconfirm": ("--factory", "bench.apps.celery_post:noconfirm"),
        "taskiq": ("bench.apps.taskiq_post:app",),
        "dramatiq": ("bench.apps.dramatiq_post:app",),
        "aiopika": ("bench.apps.aiopika_post:app",),
    }
    return [
        Server(system, name, *app, "--no-access-log", **administrator(system))  # type: ignore[arg-type]  # none is `cwd`
        for name, app in apps.items()
    ]


def administrator(system: System) -> dict[str, str]:
    """URLs with administrator rights, for implementations that use other queues and keys than ours."""
    return {"CELERY_BROKER_URL": broker_url(system), "CELERY_RESULT_BACKEND": system.servers.redis.url()}


def broker_url(system: System) -> str:
    """The broker's URL with the right to declare queues."""
    return system.servers.rabbitmq.url(vhost=system.vhost)


def ours(
    system: System, name: str = "ours", *, app: str = "bench.apps.ours:api", cwd: Path = ROOT, **environment: str
) -> Server:
    """Our API with the options of the image of the same tree, and with all features enabled."""
    return Server(system, name, "--factory", app, *uvicorn_options(cwd), cwd=cwd, health=True, **environment)


def purge(system: System) -> None:
    """Purge all queues, so that messages of one server do not slow down the next one."""
    management = system.servers.rabbitmq.management
    for queue in management(f"/api/queues/{system.vhost}"):
        management(f"/api/queues/{system.vhost}/{queue['name']}/contents", "DELETE")
