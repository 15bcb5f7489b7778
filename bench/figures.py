"""The figures: their meanings, their bars, and the result files."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = Path("build/bench.json")
TABLE = Path("build/bench.md")
# If the empty endpoint uses less of a core, the load generator or another process was the bottleneck.
LEAST_EMPTY_CORE = 0.9


@dataclass(frozen=True)
class Bar:
    """The bar of a figure, and its description. A figure without a limit is only reported."""

    what: str
    least: float | None = None
    most: float | None = None

    @property
    def words(self) -> str:
        if self.least is not None:
            return f">= {self.least:g}"
        return "reported" if self.most is None else f"<= {self.most:g}"

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


BARS: Mapping[str, Bar] = {
    "accept_c64_vs_empty": Bar("accepted/s at 64 connections, one process: ours / empty FastAPI endpoint", least=1.4),
    "accept_c16_vs_empty": Bar("the same at 16 connections", least=1.0),
    "accept_c256_vs_empty": Bar("the same at 256 connections", least=1.2),
    "accept_cpu_vs_empty": Bar("server CPU per accepted request / per empty request, 64 connections", most=0.75),
    "accept_vs_celery_confirm": Bar("accepted/s: ours / FastAPI + Celery apply_async with confirms", least=10),
    "accept_vs_celery_noconfirm": Bar("accepted/s: ours / FastAPI + Celery apply_async without confirms", least=6),
    "accept_vs_taskiq": Bar("accepted/s: ours / FastAPI + taskiq with confirms", least=2),
    "accept_vs_dramatiq": Bar("accepted/s: ours / FastAPI + dramatiq with confirms", least=2),
    "accept_vs_aiopika": Bar("accepted/s: ours / FastAPI + aio-pika with confirms", least=2),
    "accept_p99_vs_empty": Bar("p99 at half of the slower one's rate, open loop: ours / empty", most=5),
    "batch_vs_publisher": Bar("tasks/s in batches of 1,000 / the publisher alone", least=0.7),
    "worker_vs_celery": Bar(
        "no-op tasks/s, 2 processes of 4 messages each, late acks, results kept: ours / stock Celery", least=1.4
    ),
    "worker_prefetch_1_vs_celery": Bar("the same, ours with its default of 1 message for each process"),
    "worker_cpu_vs_celery": Bar("CPU of the worker's processes per task: ours / stock Celery"),
    "e2e_p50_vs_celery_polling": Bar("post to result, 100/s, p50: long-poll / Celery polled each 50 ms", most=0.3),
    "rss_idle_mb": Bar("memory of an API process, MB"),
    "rss_7000_longpolls_mb": Bar("the same with 7,000 long-polls, MB"),
}


def summary(values: Sequence[float]) -> dict[str, float]:
    """The entry of a figure in the result: median, minimum and maximum of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def ratios(ones: Iterable[float], others: Iterable[float]) -> dict[str, float]:
    """Summary of the ratios ones / others of each round: a disturbance affects both values of a round."""
    return summary([one / other for one, other in zip(ones, others, strict=True)])


def lines(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of the table in Markdown."""
    rows = ["| figure | what | must be | median | min to max |", "|---|---|---|---|---|"]
    for key, bar in BARS.items():
        if key in figures:
            found = figures[key]
            mark = "" if bar.met(found["median"]) else " **missed**"
            median, least, most = (f"{found[name]:.3g}" for name in ("median", "min", "max"))
            rows.append(f"| {key} | {bar.what} | {bar.words} | {median}{mark} | {least} to {most} |")
    return rows


def write(result: dict[str, Any]) -> None:
    """Write build/bench.json and build/bench.md."""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    TABLE.write_text("\n".join(lines(result["figures"])) + "\n")
