"""`make load-ab A=<git ref> B=<git ref>`: loads the code of two commits in turns A B B A; prints ratios B / A.

Disturbances affect neighbouring turns alike, so each pair of neighbours gives a ratio. The table has the mean ratio and
its 95% confidence interval. Both commits are loaded by this working tree's load test.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.command import ROOT, command_line
from ops.worktree import checked_out

FOLDER = ROOT / "build" / "load-ab"
CODE = FOLDER / "code"
ROUNDS = 3
VOID = 3
# Student's t for 95% confidence, for 1, 2, 3 ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
Report = Mapping[str, Any]


def _cpu_ms(report: Report) -> float:
    return float(sum(part["cpu_ms_per_task"] for name, part in report["parts"].items() if name != "Locust"))


def _rss_mb(report: Report) -> float:
    return float(sum(part["rss_max_mb"] for name, part in report["parts"].items() if name != "Locust"))


FIGURES: dict[str, Callable[[Report], float]] = {
    "finished a second": lambda report: float(max(hold["finished_per_s"] for hold in report["holds"])),
    "accepting, p50": lambda report: float(report["latency_ms"]["accept"]["system"]["p50"]),
    "accepting, p95": lambda report: float(report["latency_ms"]["accept"]["system"]["p95"]),
    "result after its task's time, p50": lambda report: float(report["latency_ms"]["result"]["system"]["p50"]),
    "result after its task's time, p95": lambda report: float(report["latency_ms"]["result"]["system"]["p95"]),
    "CPU a task, without Locust": _cpu_ms,
    "memory at most, without Locust": _rss_mb,
}


def ratio(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Returns (geometric mean of the ratios others / ones, lower bound, upper bound of its 95% confidence interval)."""
    logs = [math.log(other / one) for one, other in zip(ones, others, strict=True)]
    mean = statistics.mean(logs)
    student = STUDENT[min(len(logs) - 1, len(STUDENT)) - 1]
    half = student * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def lines(ones: Sequence[Report], others: Sequence[Report]) -> Iterator[str]:
    """The lines of the table in Markdown. `ones` and `others` are the reports of A and B, in pairs."""
    yield "| figure | A, median | B, median | B / A | 95% interval | |"
    yield "|---|---|---|---|---|---|"
    for name, find in FIGURES.items():
        a, b = [find(each) for each in ones], [find(each) for each in others]
        medians = f"{statistics.median(a):.3g} | {statistics.median(b):.3g}"
        if min(*a, *b) <= 0:  # latenesses may be negative or 0, and then have no ratio
            yield f"| {name} | {medians} | - | - | |"
            continue
        mean, low, high = ratio(a, b)
        word = "" if low <= 1 <= high else "differs"
        yield f"| {name} | {medians} | {mean:.3f} | {low:.3f} to {high:.3f} | {word} |"


def _measured(shape: str, code: Path, folder: Path) -> Report:
    """Run one load test, and return its report. Exits if a gate fails, because such a run cannot be compared."""
    command = [sys.executable, "-m", "loadtest", shape, "--code", str(code), "--folder", str(folder)]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    if status:
        print(f"This load test failed or is void: see {folder}/report.html.", file=sys.stderr)
        sys.exit(VOID if status == VOID else 1)
    report: Report = json.loads((folder / "report.json").read_text())
    return report


def main() -> None:
    """Measure both commits, and write and print the table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.ab", description="Compare two commits under one load.")
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--shape", default="smoke")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds of four turns each")
    arguments = parser.parse_args()
    with checked_out(arguments.a, CODE / "a") as a, checked_out(arguments.b, CODE / "b") as b:
        ones: list[Report] = []
        others: list[Report] = []
        for number in range(arguments.rounds):
            for place, (name, code) in enumerate((("a", a), ("b", b), ("b", b), ("a", a))):
                found = _measured(arguments.shape, code, FOLDER / f"{number}-{place}-{name}")
                (ones if name == "a" else others).append(found)
    table = list(lines(ones, others))
    head = f"Shape {arguments.shape}, A {arguments.a}, B {arguments.b}, {len(ones)} pairs"
    (FOLDER / "table.md").write_text("\n".join([head, "", *table]) + "\n")
    print(head, *table, sep="\n")


if __name__ == "__main__":
    command_line(main)
