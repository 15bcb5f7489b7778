"""Reads samples of a system: CPU and memory usage, queue lengths, counters."""

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
    """CPU time used so far in seconds, and current memory in MB."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True)
class Sample:
    """The state of the system at one time. `ready` and `unacked` are messages in the work queues."""

    ready: int
    unacked: int
    usage: Mapping[str, Mapping[str, Usage]]
    """Part -> process or pod -> usage; empty if the usage cannot be observed."""
    workers: int | None = None
    """Ready workers, and the bounds of their scaling; None if they cannot be observed."""
    workers_min: int | None = None
    workers_max: int | None = None


def used(pids: Iterable[int]) -> dict[int, Usage]:
    """Process id -> usage of the process and all its descendants, including the CPU time of ended ones."""
    children: dict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            children[process.ppid()].append(process)
    return {pid: _used(psutil.Process(pid), children) for pid in pids}


def _used(parent: psutil.Process, children: Mapping[int, list[psutil.Process]]) -> Usage:
    cpu_s, rss_bytes = 0.0, 0
    processes = [parent]
    for process in processes:  # the loop body appends to this list
        processes += children.get(process.pid, ())
        with suppress(psutil.NoSuchProcess):  # the process has just ended, and its parent includes its CPU time
            times = process.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            rss_bytes += process.memory_info().rss
    return Usage(cpu_s, rss_bytes / 1e6)


def depths(management: Management, vhost: str) -> Depths:
    """Queue of the contract -> (ready, unacked) messages.

    Raises Unusable if the broker does not answer, or lacks one of the queues.
    """
    place = f"/api/queues/{quote(vhost, safe='')}?columns=name,messages_ready,messages_unacknowledged"
    try:
        listed: list[dict[str, Any]] = management(place)
    except (OSError, ValueError) as exc:  # an incomplete answer is not valid JSON
        raise Unusable(f"The queues cannot be read at {management.url} ({exc}).") from exc
    found = {one["name"]: (one.get("messages_ready", 0), one.get("messages_unacknowledged", 0)) for one in listed}
    if missing := set(topology.QUEUES) - found.keys():
        raise Unusable(f"The broker at {management.url} has no queue {min(missing)}: check that it is this system's.")
    return {name: found[name] for name in topology.QUEUES}


def working(queues: Depths) -> tuple[int, int]:
    """Returns (ready, unacked) messages, summed over the queues that workers consume."""
    ready, unacked = (sum(queues[name][kind] for name in topology.WORK_QUEUES) for kind in (0, 1))
    return ready, unacked


def left(queues: Depths, dead_before: Depths) -> dict[str, int]:
    """Queue -> messages left by a run: all messages of work queues, and only new messages of other queues."""
    before = {name: 0 if name in topology.WORK_QUEUES else sum(dead_before.get(name, ())) for name in queues}
    return {name: max(0, sum(both) - before[name]) for name, both in queues.items()}


def metrics(url: str) -> str:
    """The metrics of a process in Prometheus' text format. Raises Unusable if they cannot be read."""
    parts = urlsplit(url)
    if parts.scheme not in CONNECTIONS or not parts.hostname:
        raise Unusable(f"{url} is not a URL of /metrics: write METRICS_URLS as http://host:port/metrics,...")
    connection = CONNECTIONS[parts.scheme](parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        if answer.status == http.client.OK:
            return answer.read().decode()
        raise Unusable(f"{url} answers {answer.status}: METRICS_URLS must list the /metrics of each API process.")
    except (OSError, http.client.HTTPException) as exc:
        raise Unusable(
            f"{url} cannot be read ({exc}): METRICS_URLS must list the /metrics of each API process."
        ) from exc
    finally:
        connection.close()


def accepted_by_task(texts: Iterable[str]) -> Counter[str]:
    """Short name of a task -> number of accepted tasks, summed over the metrics of all API processes."""
    counted = total("\n".join(texts), ACCEPTED)
    return Counter({name.rpartition(":")[2]: count for name, count in counted.items()})


def total(text: str, metric: str, outcome: str = "") -> Counter[str]:
    """Task -> value of a counter in the metrics `text`; only samples with this outcome if one is given."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*?)}} ([0-9.e+]+)$", text, re.MULTILINE):
        if not outcome or f'outcome="{outcome}"' in labels:
            found[re.findall(r'task="(.*?)"', labels)[0]] += int(float(value))
    return found
