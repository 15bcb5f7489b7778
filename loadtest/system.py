"""The whole system on this machine, of the size that a shape says: what is loaded where no host is given."""

import http.client
import os
import re
import resource
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from apps.contract import topology
from deploy.validate.runtime import API_DOCKERFILE, dockerfile_command
from loadtest.gates import Seen
from loadtest.shapes import Local, Shape
from local import definitions, processes, programs
from local.child import Child, Unusable
from local.credentials import Credentials
from local.endpoints import Endpoints, Folder
from local.management import Management
from local.nginx import Nginx
from local.servers import RabbitMQ, Redis, free_ports

TIMEOUT_S = 10.0
Counts = Counter[str]
Depths = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Usage:
    """What processes have used so far, and hold now."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True)
class Sample:
    """The system at a moment."""

    ready: int
    unacked: int
    usage: Mapping[str, Usage]
    """By part; empty where its processes are not on this machine."""
    workers: int | None = None
    """Ready ones, where one can see them, and between which bounds they are scaled."""
    workers_min: int | None = None
    workers_max: int | None = None


class System:
    """The running system: where it is, and what it says of itself."""

    def __init__(
        self, url: str, key: str, size: Local, parts: Mapping[str, list[Child]], management: Management
    ) -> None:
        self.url = url
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
        """As it is now. Unusable if a part of it has died."""
        for child in (child for children in self._parts.values() for child in children):
            if not child.alive:
                raise Unusable(f"{child.name} ended in the run; its log {child.log} ends:\n{child.last_lines()}")
        ready, unacked = working(depths(self._management, "/"))
        usage = {part: used(child.pid for child in children) for part, children in self._parts.items()}
        return Sample(ready, unacked, usage, self._workers)

    def queues(self) -> dict[str, int]:
        """What is left in them."""
        return left(depths(self._management, "/"), {})

    def seen(self) -> Seen:
        """The counters and queues, which began at nothing."""
        accepted = accepted_by_task(metrics(child.env["METRICS_URL"]) for child in self._parts["API"])
        ended = "\n".join(
            metrics(f"http://127.0.0.1:{one.env['METRICS_PORT']}/metrics") for one in self._parts["workers"]
        )
        succeeded = sum(total(ended, "sluice_task_results_total", "success").values())
        return Seen(accepted, self.queues(), succeeded)


@contextmanager
def started(shape: Shape, folder: Folder, open_files: int, code: Path) -> Iterator[System]:
    """Start everything, with the apps/ in `code`, and end it in reverse order. Unusable if something does not start."""
    size, credentials, found = shape.local, Credentials(), programs.ensure()
    with folder.locked(), ExitStack() as ends:
        broker = RabbitMQ(folder.path / "rabbitmq", found, password=credentials.broker_password_admin, logs=folder.logs)
        redis = Redis(folder.path / "redis", found, password=credentials.redis_password, logs=folder.logs)
        for server in (broker, redis):
            ends.callback(server.stop)
            server.start()
        definitions.apply(broker.management, vhost="/", passwords=credentials.broker_passwords)
        endpoints = Endpoints("", f"127.0.0.1:{broker.port}", f"127.0.0.1:{redis.port}", broker.management.url)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        of_worker = endpoints.environment("worker", credentials, environment) | {
            "WORKER_POOL": size.pool, "WORKER_CONCURRENCY": str(size.threads),
            "TASK_1_S": str(shape.task_1_s), "TASK_2_S": str(shape.task_2_s),
        }  # fmt: skip
        of_api = endpoints.environment("api", credentials, environment) | {"API_KEYS": credentials.api_keys}
        ports = free_ports(size.apis)
        recorder = processes.recorder(folder, of_worker, code)
        workers = [
            processes.worker(folder, of_worker, name=f"worker-{number}", code=code) for number in range(size.workers)
        ]
        apis = [_api(folder, of_api, port, code) for port in ports]
        everything = [recorder, *workers, *apis]
        for process in everything:
            ends.callback(process.stop)
            process.start()
        for process in workers:  # all at once: each may take some seconds to hand its tasks back
            ends.callback(process.child.signal, signal.SIGTERM)
        for process in everything:
            process.wait_ready()
        nginx = Nginx(folder.path / "nginx", ports, open_files=open_files, logs=folder.logs)
        ends.callback(nginx.stop)
        nginx.start()
        parts = {
            "NGINX": [nginx.node],
            "API": [process.child for process in apis],
            "RabbitMQ": [broker.node, broker.epmd],
            "workers": [process.child for process in workers],
            "Redis": [redis.node],
            "recorder": [recorder.child],
        }
        yield System(nginx.url, credentials.api_key, size, parts, broker.management)


def _api(folder: Folder, environment: Mapping[str, str], port: int, code: Path) -> processes.Process:
    url = f"http://127.0.0.1:{port}"
    command = dockerfile_command(code, API_DOCKERFILE)  # another commit may need other options
    options = command[command.index("--port") + 2 :]
    environment = {**environment, "METRICS_URL": f"{url}/metrics"}
    return processes.api(folder, environment, url, name=f"api-{port}", code=code, options=options)


def used(pids: Iterable[int]) -> Usage:
    """Of processes and all that they have started, those that have ended too."""
    cpu_s, rss_bytes = 0.0, 0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            try:
                times = process.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
                rss_bytes += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it ended just now, and its parent has its times
    return Usage(cpu_s, rss_bytes / 1e6)


def depths(management: Management, vhost: str) -> Depths:
    """Messages of each of the contract's queues: ready and unacked. Unusable if the broker does not tell."""
    place = f"/api/queues/{quote(vhost, safe='')}?columns=name,messages_ready,messages_unacknowledged"
    try:
        listed: list[dict[str, Any]] = management(place)
    except OSError as exc:
        raise Unusable(f"The queues cannot be read at {management.url} ({exc}).") from exc
    found = {one["name"]: (one.get("messages_ready", 0), one.get("messages_unacknowledged", 0)) for one in listed}
    if missing := set(topology.QUEUES) - found.keys():
        raise Unusable(f"The broker at {management.url} has no queue {min(missing)}: is it this system's?")
    return {name: found[name] for name in topology.QUEUES}


def working(queues: Depths) -> tuple[int, int]:
    """Ready and unacked in the queues that workers consume."""
    ready, unacked = (sum(queues[name][kind] for name in topology.WORK_QUEUES) for kind in (0, 1))
    return ready, unacked


def left(queues: Depths, dead_before: Depths) -> dict[str, int]:
    """What a run leaves: all that is in the work queues, and the dead letters that were not there before."""
    before = {name: 0 if name in topology.WORK_QUEUES else sum(dead_before.get(name, ())) for name in queues}
    return {name: sum(both) - before[name] for name, both in queues.items()}


def metrics(url: str) -> str:
    """What a process says of itself in Prometheus' words. Unusable if it says nothing."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        if answer.status == http.client.OK:
            return answer.read().decode()
        raise Unusable(f"{url} answers {answer.status}: METRICS_URLS must name each API process's own /metrics.")
    except (OSError, http.client.HTTPException) as exc:
        raise Unusable(
            f"{url} cannot be read ({exc}): METRICS_URLS must name each API process's own /metrics."
        ) from exc
    finally:
        connection.close()


def accepted_by_task(texts: Iterable[str]) -> Counter[str]:
    """By a task's short name, over all API processes."""
    counted = total("\n".join(texts), "sluice_accepted_total")
    return Counter({name.rpartition(":")[2]: count for name, count in counted.items()})


def total(text: str, metric: str, outcome: str = "") -> Counter[str]:
    """A counter's samples by their task, of one outcome where it has outcomes."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*?)}} ([0-9.e+]+)$", text, re.MULTILINE):
        if not outcome or f'outcome="{outcome}"' in labels:
            found[re.findall(r'task="(.*?)"', labels)[0]] += int(float(value))
    return found


def raise_open_files(wanted: int) -> None:
    """Let this process and its children have so many files open. Unusable if the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        raise Unusable(
            f"So many users need {wanted} open files, and only {hard} are allowed: raise it (`ulimit -Hn {wanted}` as "
            "root, or LimitNOFILE, or /etc/security/limits.conf), or take a smaller shape."
        ) from None
