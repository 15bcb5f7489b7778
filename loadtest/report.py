"""Writes the report of a run as JSON and as an HTML page that needs no network."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from loadtest import usage
from loadtest.gates import Verdict, accept_ms, late_ms, percentile
from loadtest.ledger import Ledger
from loadtest.series import buckets, changes, held, rates
from loadtest.shapes import Shape
from loadtest.usage import Parts, Samples

PAGE = Path(__file__).parent / "report.html"
DATA = "/*data*/"
# Points per chart. More points than pixels would only make the file larger.
POINTS_MAX = 300
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# A step is beyond the knee if its rate of posts per user is below this share of the first step's.
KNEE_SHARE = 0.9


@dataclass(frozen=True)
class Run:
    """The data of a report. `floor` is the ledger of the stub run."""

    shape: Shape
    about: Mapping[str, str]
    ledger: Ledger
    floor: Ledger
    samples: Samples
    verdict: Verdict
    missing: Sequence[str] = ()
    """Time and reason of each missing sample."""


def lines(verdict: Verdict) -> Iterator[str]:
    """The lines of the verdict for a terminal."""
    for gate in verdict.gates:
        yield f"  {'held  ' if gate.held else 'FAILED'}  {gate.name}: {gate.found} (wanted: {gate.wanted})"
    for why in verdict.void:
        yield f"  VOID    {why}"
    yield f"The run is {verdict.word}." if verdict.void else f"The gates {verdict.word}."


def load_in_words(shape: Shape) -> str:
    """One sentence that describes the load of a shape."""
    mix = ", ".join(f"{weight}% {_plain(kind)}" for kind, weight in shape.mix.users.items())
    tasks = " and ".join(f"{_plain(task)} of {seconds:g} s" for task, seconds in shape.task_s.items())
    low, high = shape.think_s
    keyed = f"{shape.mix.keyed_share:.0%} of single posts with a key"
    return (
        f"Up to {shape.users_max:,} users who think {low:g} to {high:g} s ({mix}; {keyed}); {tasks}, {_parts(shape)}."
    )


def _parts(shape: Shape) -> str:
    return ":".join(str(weight) for weight in shape.mix.tasks.values())


def _plain(name: str) -> str:
    return {
        "Poster": "post and wait", "BatchPoster": "post batches", "Reader": "read old results",
        "Retrier": "post again with the same key", "Slow": "leave connections idle",
    }.get(name, name)  # fmt: skip


def write(folder: Path, run: Run) -> Path:
    """Write report.json and report.html into the folder, and return the path of report.html."""
    text = json.dumps(figures(run), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8").replace(DATA, text.replace("<", "\\u003c"))
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def figures(run: Run) -> dict[str, Any]:
    """The whole report as data for JSON."""
    parts = usage.by_part(run.samples)
    steps = [_hold(run, parts, *hold) for hold in run.shape.holds()]
    return {
        "shape": run.shape.name,
        "about": run.shape.about,
        "load": load_in_words(run.shape),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": run.verdict.word,
        "void": run.verdict.void,
        "gates": [asdict(gate) for gate in run.verdict.gates],
        "settings": {**run.about, **_machine(), "mix": run.shape.mix.users, "think_s": run.shape.think_s,
                     "task_s": run.shape.task_s, "stages_s_and_users": run.shape.stages},
        "latency_ms": {
            name: {"system": _percentiles(find(run.ledger)), "stub": _percentiles(find(run.floor))}
            for name, find in (("accept", accept_ms), ("result", late_ms))
        },
        "holds": steps,
        "knee": _knee(steps),
        "parts": usage.of_parts(parts, len(run.ledger.finished)),
        "processes": usage.of_processes(run.samples),
        "missing_samples": {"count": len(run.missing), "first": next(iter(run.missing), None)},
        "series": _series(run, parts),
    }  # fmt: skip


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    return {name: _number(percentile(values, share)) for name, share in SHARES.items()}


def _number(value: float, digits: int = 2) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _hold(run: Run, parts: Parts, begin_s: float, end_s: float, users: int) -> dict[str, Any]:
    """Rates, latencies and usage while the number of users was constant."""
    offset_s = _offset_s(run)
    begin_s, end_s = begin_s + offset_s, end_s + offset_s
    accepted = [task for task in run.ledger.tasks.values() if begin_s <= task.accepted_s < end_s]
    finished = [task for task in run.ledger.finished if task.finished_s and begin_s <= task.finished_s < end_s]
    return {
        "users": users,
        "from_s": round(begin_s, 1),
        "to_s": round(end_s, 1),
        "accepted_per_s": round(len(accepted) / (end_s - begin_s), 1),
        "finished_per_s": round(len(finished) / (end_s - begin_s), 1),
        "accept_p95_ms": _number(percentile([task.accept_ms for task in accepted], 0.95)),
        "result_p95_ms": _number(percentile([task.late_ms for task in finished if task.late_ms is not None], 0.95)),
        "parts": usage.of_parts([one for one in parts if begin_s <= one[0] <= end_s], len(finished)),
    }


def _offset_s(run: Run) -> float:
    """Start of the first stage, in seconds after the start of the run: Locust needs some time to start."""
    return next((at_s for at_s, users, *_ in run.ledger.seconds if users), 0.0)


def _knee(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The knee of a shape with increasing steps, or None for other shapes.

    The knee is the last step before users post less: a user posts again only after a result and the think time, so late
    results reduce the rate. `most_per_s` is the highest rate of finished tasks in any step.
    """
    if len(steps) < 2 or any(two["users"] <= one["users"] for one, two in pairwise(steps)):  # noqa: PLR2004
        return None
    least = KNEE_SHARE * steps[0]["accepted_per_s"] / steps[0]["users"]
    served = [step["accepted_per_s"] >= least * step["users"] for step in steps]
    knee = steps[served.index(False) - 1] if False in served else steps[-1]
    return {
        "users": knee["users"],
        "finished_per_s": knee["finished_per_s"],
        "reached": False in served,
        "most_per_s": max(step["finished_per_s"] for step in steps),
    }


def _series(run: Run, parts: Parts) -> dict[str, Any]:
    """Name -> values over time, in steps of whole seconds."""
    step_s = max(1, math.ceil(run.ledger.end_s / POINTS_MAX))
    edges = [float(edge) for edge in range(0, math.ceil(run.ledger.end_s) + step_s, step_s)]
    tasks = run.ledger.tasks.values()
    accept = buckets(((task.accepted_s, task.accept_ms) for task in tasks), edges)
    late = buckets(
        ((task.finished_s, task.late_ms) for task in tasks if task.finished_s and task.late_ms is not None), edges
    )
    finished = buckets(((task.finished_s, 1.0) for task in tasks if task.finished_s), edges)
    counts = {
        kind: rates([(second[0], second[place]) for second in run.ledger.seconds], edges)
        for kind, place in (("requests", 2), ("failures", 3))
    }
    users = [(second[0], second[1]) for second in run.ledger.seconds]
    oldest = [(at_s, waited_s) for at_s, waited_s in run.ledger.oldest_waiting(run.shape.task_s)]
    series: dict[str, Any] = {
        "t_s": edges[1:],
        "users": held(users, edges),
        "requests_per_s": counts["requests"],
        "failures_per_s": counts["failures"],
        "accepted_per_s": [round(len(values) / step_s, 2) for values in accept],
        "finished_per_s": [round(len(values) / step_s, 2) for values in finished],
        "oldest_waiting_s": [round(max(values), 2) if values else None for values in buckets(oldest, edges)],
        **{
            f"accept_{name}_ms": [_number(percentile(values, share)) for values in accept]
            for name, share in SHARES.items()
        },
        **{
            f"result_{name}_ms": [_number(percentile(values, share)) for values in late]
            for name, share in SHARES.items()
        },
    }
    for field in ("ready", "unacked", "workers", "workers_min", "workers_max"):
        series[field] = held([(at_s, getattr(sample, field)) for at_s, sample in run.samples], edges)
    series |= {"rss_mb": {}, "cores": {}}
    for part in parts[-1][1] if parts else ():
        used = [(at_s, each[part].cpu_s) for at_s, each in parts]
        series["rss_mb"][part] = held([(at_s, each[part].rss_mb) for at_s, each in parts], edges)
        # the first and the last sample are included, because there may be no change between them
        series["cores"][part] = rates([used[0], *changes(used[:-1]), used[-1]], edges)
    return series


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
