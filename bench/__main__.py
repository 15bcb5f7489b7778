"""`make bench`: every figure of bench/figures.py in one run on the same broker; build/bench.json and a table.

`python -m bench accept worker` measures only those, and keeps the others of the last run out of the result.
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
# Nobody consumes while tasks are accepted: room for what a round leaves.
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
    """Servers and an empty system of the bench's own, RabbitMQ as new as the one that the charts deploy."""
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder,
        running(Path(folder), _newer()) as servers,
        System(servers, Path(folder), max_length_messages=MAX_LENGTH) as started,
    ):
        yield started


def _newer() -> Path | None:
    """Where the newer RabbitMQ is; None, and then it is this machine's own, where it can neither be found nor built."""
    try:
        return given_root() or newer.ensure()
    except Unusable as exc:
        print(
            f"On this machine's own RabbitMQ, and not on the one that is deployed: {exc}", file=sys.stderr, flush=True
        )
        return None


def machine(broker: System) -> dict[str, Any]:
    """Where the figures are from."""
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
    """Of the one that is measured on, as 4.3.5."""
    return ".".join(map(str, broker.servers.rabbitmq.version))


def _filesystem(folder: Path) -> str:
    """The kind that a folder is on: `tmpfs` is memory."""
    around = [disk for disk in psutil.disk_partitions(all=True) if folder.is_relative_to(disk.mountpoint)]
    return max(around, key=lambda disk: len(disk.mountpoint)).fstype


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Measure, write, print; fail where a figure misses its bar, or the machine was too busy to tell."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what accepting and working costs.")
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
        sys.exit(
            "Void: the empty endpoint had less than 0.9 of a core, or the broker stood still; the machine is busy."
        )
    if missed:
        sys.exit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    command_line(main)
