"""CPU and memory usage during a run, for each part of the system and for each process."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtest import series
from loadtest.sample import Sample, Usage

Samples = Sequence[tuple[float, Sample]]
Parts = Sequence[tuple[float, Mapping[str, Usage]]]
# Minimum length of an interval for minimum and maximum: in shorter ones they would depend on the times of the samples.
# A kubelet updates its figures only every 10 s or more.
WINDOW_S = 5.0


def by_part(samples: Samples) -> Parts:
    """For each sample (time, part -> CPU time used so far, including ended processes, and current memory)."""
    cpu_s: dict[str, dict[str, float]] = defaultdict(dict)
    found = []
    for at_s, sample in samples:
        for part, processes in sample.usage.items():
            cpu_s[part].update({name: one.cpu_s for name, one in processes.items()})
        rss_mb = {part: sum(one.rss_mb for one in processes.values()) for part, processes in sample.usage.items()}
        found.append((at_s, {part: Usage(sum(cpu_s[part].values()), rss_mb[part]) for part in sample.usage}))
    return found


def of_parts(parts: Parts, tasks: int) -> dict[str, dict[str, float]]:
    """Part -> cores used, CPU milliseconds per task, and peak memory in MB, from the first to the last sample."""
    if len(parts) < 2:  # noqa: PLR2004 - a difference needs two
        return {}
    (first_s, first), (last_s, last) = parts[0], parts[-1]
    found = {}
    for part, end in last.items():
        cpu_s = end.cpu_s - first[part].cpu_s
        found[part] = {
            "cores": round(cpu_s / (last_s - first_s), 3),
            "cpu_ms_per_task": round(1000 * cpu_s / tasks, 3) if tasks else 0.0,
            "rss_max_mb": round(max(usage[part].rss_mb for _, usage in parts), 1),
        }
    return found


def of_processes(samples: Samples) -> list[dict[str, Any]]:
    """For each process: minimum, mean and maximum of the used cores and of the memory in MB, while it existed."""
    seen: dict[tuple[str, str], list[tuple[float, Usage]]] = defaultdict(list)
    for at_s, sample in samples:
        for part, processes in sample.usage.items():
            for name, usage in processes.items():
                seen[part, name].append((at_s, usage))
    return [
        {
            "part": part,
            "process": name,
            "cores": _cores([(at_s, usage.cpu_s) for at_s, usage in points]),
            "rss_mb": _spread(sum(usage.rss_mb for _, usage in points) / len(points), (u.rss_mb for _, u in points), 1),
        }
        for (part, name), points in seen.items()
        if len(points) > 1
    ]


def _cores(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Minimum, mean and maximum of the used cores, in intervals of at least WINDOW_S between changed samples."""
    (first_s, first), (last_s, last) = points[0], points[-1]
    rates = []
    begin: tuple[float, float] | None = None
    for at_s, cpu_s in series.changes(points):
        if begin is None:
            begin = at_s, cpu_s
        elif at_s - begin[0] >= WINDOW_S:
            rates.append((cpu_s - begin[1]) / (at_s - begin[0]))
            begin = at_s, cpu_s
    return _spread((last - first) / (last_s - first_s), rates, 3)


def _spread(mean: float, values: Iterable[float], digits: int) -> dict[str, float]:
    every = [mean, *values]
    return {"min": round(min(every), digits), "mean": round(mean, digits), "max": round(max(every), digits)}
