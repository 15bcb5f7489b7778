"""`make bench-compare REF=...`: what the working tree accepts, and what another commit does, in turns on one broker."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench import accept, figures
from bench.__main__ import ROUNDS, rabbitmq_version, system
from bench.load import wrk
from bench.server import ROOT, ours
from local.command import command_line
from local.worktree import checked_out

RESULT = Path("build/bench-compare.json")
# The app of both: an older commit may have no bench of its own.
APP = "apps.api.app:create_app"


def main() -> None:
    """Measure both, print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare with another commit.")
    parser.add_argument("ref")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with (
        checked_out(arguments.ref, ROOT / "build" / "compare") as folder,
        system() as broker,
        ours(broker, "this", app=APP) as this,
        ours(broker, "other", app=APP, cwd=folder) as other,
    ):
        for server in (this, other):
            wrk(server, 16, 1)
        turns = accept.in_turns(broker, [this, other], 64, arguments.rounds)
        rabbitmq = rabbitmq_version(broker)
    result: dict[str, Any] = {
        "ref": arguments.ref,
        "rabbitmq": rabbitmq,
        "accept_c64_vs_ref": figures.ratios(accept.per_s(turns["this"]), accept.per_s(turns["other"])),
        "accept_cpu_vs_ref": figures.ratios(accept.cpu_us(turns["this"]), accept.cpu_us(turns["other"])),
        "this_per_s": statistics.median(accept.per_s(turns["this"])),
        "ref_per_s": statistics.median(accept.per_s(turns["other"])),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"RabbitMQ {rabbitmq}")
    for name in ("accept_c64_vs_ref", "accept_cpu_vs_ref"):
        found = result[name]
        print(f"{name}: {found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f}, {found['rounds']} rounds)")


if __name__ == "__main__":
    command_line(main)
