"""`make bench`: measures every figure of bench/figures.py on one broker, and writes build/bench.json and a table.

`python -m bench accept worker` measures only these parts; the result does not contain other parts of earlier runs.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench import accept, batch, end_to_end, figures, memory, worker
from ops.command import Unusable, command_line
from ops.servers import newer
from tests.harness.servers import given_root, running
from tests.harness.system import System

ROUNDS = 5
# Length limit of the queues. No worker consumes while tasks are accepted, so a whole round must fit.
MAX_LENGTH = 5_000_000
PARTS: dict[str, Callable[[System, int], Any]] = {
    "accept": accept.measure,
    "batch": batch.measure,
    "worker": worker.measure,
    "end_to_end": end_to_end.measure,
    "memory": memory.measure,
}


@contextmanager
def system() -> Iterator[System]:
    """Start servers and an empty system. RabbitMQ has at least the version that the charts deploy, if available."""
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder,
        running(Path(folder), _newer()) as servers,
        System(servers, Path(folder), max_length_messages=MAX_LENGTH) as started,
    ):
        yield started


def _newer() -> Path | None:
    """The root file system with a newer RabbitMQ, or None to use this machine's own if it cannot be built."""
    try:
        return given_root() or newer.ensure()
    except Unusable as exc:
        print(f"Using this machine's own RabbitMQ instead of the deployed version: {exc}", file=sys.stderr, flush=True)
        return None


def machine(broker: System) -> dict[str, Any]:
    """The machine and the versions that the figures were measured on."""
    model = [line.partition(": ")[2] for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "rabbitmq": rabbitmq_version(broker),
        "broker_files": _filesystem(broker.folder),
    }


def rabbitmq_version(broker: System) -> str:
    """The version of the broker, for example 4.3.5."""
    return ".".join(map(str, broker.servers.rabbitmq.version))


def _filesystem(folder: Path) -> str:
    """The type of the file system of a folder; `tmpfs` is memory."""
    around = [disk for disk in psutil.disk_partitions(all=True) if folder.is_relative_to(disk.mountpoint)]
    return max(around, key=lambda disk: len(disk.mountpoint)).fstype


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Measure, write and print the figures. Exits with 1 if a figure misses its bar, or the machine was too busy."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the costs of tasks.")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"figures": {}, "void": False, "rates": {}}
    with system() as broker:
        result["machine"] = machine(broker)
        for name in arguments.parts or PARTS:
            started_s = time.perf_counter()
            found, *more = PARTS[name](broker, arguments.rounds)
            result["figures"] |= found
            result["rates"] |= more[-1]
            result["void"] = result["void"] or True in more
            print(f"{name}: {time.perf_counter() - started_s:.0f} s", file=sys.stderr, flush=True)
            figures.write(result)
    print(f"RabbitMQ {result['machine']['rabbitmq']}", *figures.lines(result["figures"]), sep="\n")
    missed = [key for key, found in result["figures"].items() if not figures.BARS[key].met(found["median"])]
    if result["void"]:
        sys.exit("Void: the empty endpoint got less than 0.9 of a core, or the broker stalled: use an idle machine.")
    if missed:
        sys.exit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    command_line(main)
