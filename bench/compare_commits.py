"""`make bench-compare REF=...`: compares the working tree with another commit, in turns on one broker.

`accept` measures the rate at which each API accepts tasks. `worker` measures the cost of a task that does nothing in
each worker. The API of the same commit has accepted these tasks, because commits may have different message formats.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from bench import accept, figures, worker
from bench.__main__ import ROUNDS, rabbitmq_version, system
from bench.apps.model import BODY
from bench.load import BATCH_TASKS, wrk
from bench.server import ROOT, Server, ours
from ops.command import command_line
from ops.worktree import checked_out
from tests.harness.system import System

RESULT = Path("build/bench-compare.json")


def _accept(broker: System, servers: list[Server], _: Path, rounds: int) -> dict[str, Any]:
    for server in servers:
        wrk(server, 16, 1)
    turns = accept.in_turns(broker, servers, 64, rounds)
    return {
        "accept_c64_vs_ref": figures.ratios(accept.per_s(turns["this"]), accept.per_s(turns["other"])),
        "accept_cpu_vs_ref": figures.ratios(accept.cpu_us(turns["this"]), accept.cpu_us(turns["other"])),
        "this_per_s": statistics.median(accept.per_s(turns["this"])),
        "ref_per_s": statistics.median(accept.per_s(turns["other"])),
    }


def _worker(broker: System, servers: list[Server], folder: Path, rounds: int) -> dict[str, Any]:
    """Both workers prefetch 4 messages per process, as in `make bench`."""
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    costs: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        turns: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
        for server in accept.there_and_back(servers):
            _post_batches(server)
            cwd = ROOT if server.name == "this" else folder
            one = replace(worker.WORKERS["ours"], cwd=cwd)
            turns[server.name].append(worker.per_s_and_us(broker, server.name, one))
        for name, both in turns.items():
            per_s, us = zip(*both, strict=True)
            rates[name].append(statistics.mean(per_s))
            costs[name].append(statistics.mean(us))
    return {
        "worker_vs_ref": figures.ratios(rates["this"], rates["other"]),
        "worker_cpu_vs_ref": figures.ratios(costs["this"], costs["other"]),
        "this_worker_cpu_us": statistics.median(costs["this"]),
        "ref_worker_cpu_us": statistics.median(costs["other"]),
    }


def _with_bench(folder: Path) -> Path:
    """Copy this commit's bench/, with its task that does nothing, into the other commit."""
    shutil.copytree(ROOT / "bench", folder / "bench", dirs_exist_ok=True)
    return folder


def _post_batches(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as client:
        for _ in range(0, worker.TASKS, BATCH_TASKS):
            client.post("/tasks/batch", json={"tasks": [json.loads(BODY)] * BATCH_TASKS}).raise_for_status()


PARTS: dict[str, Callable[[System, list[Server], Path, int], dict[str, Any]]] = {"accept": _accept, "worker": _worker}


def main() -> None:
    """Measure both commits, write the result, and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare_commits", description="Compare with another commit.")
    parser.add_argument("ref")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"ref": arguments.ref}
    with (
        checked_out(arguments.ref, ROOT / "build" / "compare") as folder,
        system() as broker,
        ours(broker, "this") as this,
        ours(broker, "other", cwd=_with_bench(folder)) as other,
    ):
        result["rabbitmq"] = rabbitmq_version(broker)
        for name in arguments.parts or PARTS:
            result |= PARTS[name](broker, [this, other], folder, arguments.rounds)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"RabbitMQ {result['rabbitmq']}")
    for name, found in result.items():
        if name.endswith("_vs_ref"):
            print(f"{name}: {found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f}, {found['rounds']} rounds)")


if __name__ == "__main__":
    command_line(main)
