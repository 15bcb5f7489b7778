"""The default target: a whole system on this machine, in the size of the shape."""

import os
import resource
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtest import tasks
from loadtest.gates import Seen
from loadtest.sample import Sample, accepted_by_task, depths, left, metrics, total, used, working
from loadtest.shapes import Local, Shape
from ops import definitions
from ops.command import Unusable
from ops.credentials import Credentials
from ops.management import Management
from ops.servers import nginx, processes, programs
from ops.servers.child import Child
from ops.servers.endpoints import Endpoints, Folder
from ops.servers.nginx import Nginx
from ops.servers.ports import free_ports
from ops.servers.rabbitmq import RabbitMQ
from ops.servers.redis import Redis

TASKS = Path(tasks.__file__).parent


class Ended(Unusable):
    """A process of the system has ended, so the run cannot continue."""


class System:
    """The running system: its address, and access to its samples and counters."""

    def __init__(
        self, url: str, key: str, size: Local, parts: Mapping[str, list[Child]], management: Management
    ) -> None:
        self.url = url
        self.host = ""  # the Host header is that of the URL
        self.key = key
        self.about = {
            "where": "this machine",
            "rabbitmq": ".".join(map(str, management.version)),
            "size": f"{size.apis} API, {size.workers} workers of {size.threads} {size.pool}, NGINX in front",
        }
        self._parts = parts
        self._management = management
        self._workers = size.workers

    def sample(self) -> Sample:
        """The current sample. Raises Ended if a process has ended, and Unusable if the broker does not answer."""
        children = [child for part in self._parts.values() for child in part]
        for child in children:
            if not child.alive:
                raise Ended(f"{child.name} ended during the run; its log {child.log} ends:\n{child.last_lines()}")
        ready, unacked = working(depths(self._management, "/"))
        of = used(child.pid for child in children)
        usage = {part: {child.name: of[child.pid] for child in each} for part, each in self._parts.items()}
        return Sample(ready, unacked, usage, self._workers)

    def queues(self) -> dict[str, int]:
        """Messages left in each queue."""
        return left(depths(self._management, "/"), {})

    def seen(self) -> Seen:
        """The counters, which started at 0, and the messages left. Raises Unusable if they cannot be read."""
        accepted = accepted_by_task(
            metrics(f"http://127.0.0.1:{child.env['PORT']}/metrics") for child in self._parts["API"]
        )
        ended = "\n".join(
            metrics(f"http://127.0.0.1:{one.env['METRICS_PORT']}/metrics") for one in self._parts["workers"]
        )
        succeeded = sum(total(ended, "sluice_task_results_total", "success").values())
        return Seen(accepted, self.queues(), succeeded)


def ensure() -> None:
    """Install missing programs of the local system. Raises Unusable if they cannot be installed."""
    programs.ensure()
    nginx.ensure()


@contextmanager
def started(shape: Shape, folder: Folder, open_files: int, code: Path) -> Iterator[System]:
    """Start the whole system with the apps/ in `code` and the load test's tasks, and stop it in reverse order.

    Raises Unusable if a process does not start.
    """
    credentials = Credentials()
    with folder.locked(), ExitStack() as ends:
        broker, redis = _servers(folder, credentials, ends)
        endpoints = Endpoints("", f"127.0.0.1:{broker.port}", f"127.0.0.1:{redis.port}", broker.management.url)
        parts = _processes(shape, folder, _with_tasks(code, folder.path / "code"), endpoints, credentials)
        everything = [process for part in parts.values() for process in part]
        for process in everything:
            ends.callback(process.stop)
            process.start()
        # SIGTERM to all workers first, because each may need seconds to requeue its tasks
        for process in parts["workers"]:
            ends.callback(process.child.signal, signal.SIGTERM)
        for process in everything:
            process.wait_ready()
        ports = [int(process.child.env["PORT"]) for process in parts["API"]]
        front = Nginx(folder.path / "nginx", ports, open_files=open_files, logs=folder.logs)
        ends.callback(front.stop)
        front.start()
        children = {part: [process.child for process in each] for part, each in parts.items()}
        servers = {"NGINX": [front.node], "RabbitMQ": [broker.node, broker.epmd], "Redis": [redis.node]}
        yield System(front.url, credentials.api_key, shape.local, servers | children, broker.management)


def _servers(folder: Folder, credentials: Credentials, ends: ExitStack) -> tuple[RabbitMQ, Redis]:
    found = programs.ensure()
    broker = RabbitMQ(folder.path / "rabbitmq", found, password=credentials.broker_password_admin, logs=folder.logs)
    redis = Redis(folder.path / "redis", found, passwords=credentials.redis_passwords, logs=folder.logs)
    for server in (broker, redis):
        ends.callback(server.stop)
        server.start()
    definitions.apply(broker.management, credentials.broker_passwords)
    return broker, redis


def _with_tasks(code: Path, copy: Path) -> Path:
    """Copy the code, and add the load test's family of tasks. Raises Unusable if the code has no apps/tasks."""
    if not (code / "apps" / "tasks").is_dir():
        raise Unusable(
            f"{code} has no folder apps/tasks, so the load test's tasks cannot be added to it: choose a later commit."
        )
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(code / "apps", copy / "apps", ignore=ignored)
    shutil.copytree(TASKS, copy / "apps" / "tasks" / "load", ignore=ignored)
    return copy


def _processes(
    shape: Shape, folder: Folder, code: Path, endpoints: Endpoints, credentials: Credentials
) -> dict[str, list[processes.Process]]:
    """Part -> processes in the order of their start. They are stopped in reverse order, so the API stops first."""
    size = shape.local
    given = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    of_recorder = endpoints.environment("recorder", credentials, given)
    of_worker = endpoints.environment("worker", credentials, given) | {
        "WORKER_POOL": size.pool, "WORKER_CONCURRENCY": str(size.threads),
    }  # fmt: skip
    of_api = endpoints.environment("api", credentials, given) | {
        "API_KEYS": credentials.api_keys,
        "QUOTA_TASKS_PER_S": "1000000", "QUOTA_OPEN_TASKS": "1000000000",  # all users share one key
    }  # fmt: skip
    names = [f"worker-{number}" for number in range(size.workers)]
    return {
        "recorder": [processes.recorder(folder, of_recorder, code)],
        "workers": [processes.worker(folder, of_worker, name=name, code=code) for name in names],
        "API": [_api(folder, of_api, port, code) for port in free_ports(size.apis)],
    }


def _api(folder: Folder, environment: Mapping[str, str], port: int, code: Path) -> processes.Process:
    url = f"http://127.0.0.1:{port}"
    environment = {**environment, "PORT": str(port)}
    return processes.api(folder, environment, url, name=f"api-{port}", code=code)


def raise_open_files(wanted: int) -> None:
    """Raise the limit of open files of this process and its children. Raises Unusable if this is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        raise Unusable(
            f"The users of this shape need {wanted} open files, and only {hard} are allowed: raise the limit "
            f"(`ulimit -Hn {wanted}` as root, LimitNOFILE, or /etc/security/limits.conf), or use a smaller shape."
        ) from None
