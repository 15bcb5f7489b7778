"""What a system says of itself: processor and memory, queues, counters."""

import http.client
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from apps.contract import topology
from ops.command import Unusable
from ops.management import Management

TIMEOUT_S = 10.0
CONNECTIONS: Mapping[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}
ACCEPTED = "sluice_accepted_total"
Counts = Counter[str]
Depths = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Usage:
    """What has been used so far, and is held now."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True)
class Sample:
    """The system at a moment."""

    ready: int
    unacked: int
    usage: Mapping[str, Mapping[str, Usage]]
    """By part and process, or pod; empty where they cannot be seen."""
    workers: int | None = None
    """Ready ones, where one can see them, and between which bounds they are scaled."""
    workers_min: int | None = None
    workers_max: int | None = None


def used(pids: Iterable[int]) -> dict[int, Usage]:
    """Of each of these processes and all that it has started, those that have ended too. One look at all there are."""
    children: dict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            children[process.ppid()].append(process)
    return {pid: _used(psutil.Process(pid), children) for pid in pids}


def _used(parent: psutil.Process, children: Mapping[int, list[psutil.Process]]) -> Usage:
    cpu_s, rss_bytes = 0.0, 0
    processes = [parent]
    for process in processes:  # which grows
        processes += children.get(process.pid, ())
        with suppress(psutil.NoSuchProcess):  # it ended just now, and its parent has its times
            times = process.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            rss_bytes += process.memory_info().rss
    return Usage(cpu_s, rss_bytes / 1e6)


def depths(management: Management, vhost: str) -> Depths:
    """Messages of each of the contract's queues: ready and unacked. Unusable if the broker does not tell."""
    place = f"/api/queues/{quote(vhost, safe='')}?columns=name,messages_ready,messages_unacknowledged"
    try:
        listed: list[dict[str, Any]] = management(place)
    except (OSError, ValueError) as exc:  # half an answer is no JSON
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
    return {name: max(0, sum(both) - before[name]) for name, both in queues.items()}


def metrics(url: str) -> str:
    """What a process says of itself in Prometheus' words. Unusable if it says nothing."""
    parts = urlsplit(url)
    if parts.scheme not in CONNECTIONS or not parts.hostname:
        raise Unusable(f"{url} is no address of /metrics: write METRICS_URLS as http://host:port/metrics,...")
    connection = CONNECTIONS[parts.scheme](parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
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
    counted = total("\n".join(texts), ACCEPTED)
    return Counter({name.rpartition(":")[2]: count for name, count in counted.items()})


def total(text: str, metric: str, outcome: str = "") -> Counter[str]:
    """A counter's samples by their task, of one outcome where it has outcomes."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*?)}} ([0-9.e+]+)$", text, re.MULTILINE):
        if not outcome or f'outcome="{outcome}"' in labels:
            found[re.findall(r'task="(.*?)"', labels)[0]] += int(float(value))
    return found
