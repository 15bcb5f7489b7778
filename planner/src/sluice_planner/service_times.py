"""How long tasks run.

Written as:
    12.5 or constant:12.5
    exponential:12.5               with this mean
    lognormal:12.5,cv=0.5          with this mean, and this standard deviation / mean
    histogram:FILE.csv             rows of upper bound in seconds and count, as measured
    metrics:FILE or metrics:http://...  the histogram sluice_task_run_seconds of a worker's /metrics
"""

import csv
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sluice_planner.arrivals import Floats
from sluice_planner.durations import seconds
from sluice_planner.fields import Wrong, split_kind

METRIC = "sluice_task_run_seconds"
HTTP_TIMEOUT_S = 10
LONGEST_S = 30 * 86400.0

Draw = Callable[[np.random.Generator, int], Floats]


@dataclass(frozen=True)
class Service:
    """A distribution of service times in seconds; `text` is its notation."""

    text: str
    mean_s: float
    draw: Draw


def read(text: str, where: str) -> Service:
    """Parse service times, written as the module describes. Raises Wrong if they are malformed or not above 0."""
    kinds: dict[str, Callable[[str, str, str], Service]] = {
        "constant": _constant,
        "exponential": _exponential,
        "lognormal": _lognormal,
        "histogram": _histogram,
        "metrics": _metrics,
    }
    kind, rest = split_kind(text, kinds, where)
    return kinds[kind](text, rest, where)


def constant(mean_s: float) -> Service:
    """Every task takes the same time."""
    return Service(f"{mean_s:g}", mean_s, partial(_same, mean_s))


def _constant(text: str, rest: str, where: str) -> Service:
    mean_s = _positive(rest, where)
    return Service(text, mean_s, partial(_same, mean_s))


def _exponential(text: str, rest: str, where: str) -> Service:
    mean_s = _positive(rest, where)
    return Service(text, mean_s, partial(_exponentially, mean_s))


def _lognormal(text: str, rest: str, where: str) -> Service:
    match = re.fullmatch(r"([^,]+),cv=([\d.]+)", rest)
    if match is None or not 0 < float(match[2]) <= 100:  # noqa: PLR2004 - wider than anything measured
        raise Wrong(f"{where}: a lognormal must read lognormal:12.5,cv=0.5, not {text!r}")
    mean_s = _positive(match[1], where)
    variance = math.log(1 + float(match[2]) ** 2)
    location = math.log(mean_s) - variance / 2
    return Service(text, mean_s, partial(_lognormally, location, math.sqrt(variance)))


def _histogram(text: str, rest: str, where: str) -> Service:
    try:
        rows = [row for row in csv.reader(Path(rest).read_text().splitlines()) if row and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError) as exc:
        raise Wrong(f"{where}: {rest}: cannot be read ({getattr(exc, 'strerror', None) or 'not a text'})") from None
    if rows and not any(character.isdigit() for character in "".join(rows[0])):
        rows = rows[1:]
    try:
        bounds, counts = [float(row[0]) for row in rows], [float(row[1]) for row in rows]
    except (ValueError, IndexError):
        raise Wrong(f"{where}: {rest}: rows must be an upper bound in seconds and a count") from None
    return _bucketed(text, bounds, counts, f"{where}: {rest}")


def _metrics(text: str, rest: str, where: str) -> Service:
    """The buckets of all tasks together. Raises Wrong if tasks took longer than the highest bound."""
    buckets: dict[float, float] = {}
    for labels, value in re.findall(rf"^{METRIC}_bucket{{(.*?)}} (\S+)", _exposition(rest, where), re.MULTILINE):
        bound = re.search(r'le="([^"]+)"', labels)
        if bound is None:
            raise Wrong(f"{where}: {rest}: a bucket of {METRIC} has no bound")
        buckets[float(bound[1])] = buckets.get(float(bound[1]), 0.0) + float(value)
    bounds = sorted(buckets)
    cumulative = [buckets[bound] for bound in bounds]
    counts = [count - before for count, before in zip(cumulative, [0.0, *cumulative], strict=False)]
    if bounds and math.isinf(bounds[-1]):
        if counts[-1] > 0:
            raise Wrong(f"{where}: {rest}: {counts[-1]:g} tasks are above the highest bound")
        bounds, counts = bounds[:-1], counts[:-1]
    return _bucketed(text, bounds, counts, f"{where}: {rest}: {METRIC}")


def _opener(source: str) -> urllib.request.OpenerDirector:
    """An opener with the environment's proxies, except for addresses of this machine."""
    host = urllib.parse.urlsplit(source).hostname or ""
    is_here = host in {"localhost", "::1"} or host.startswith("127.")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_here else []))


def _exposition(source: str, where: str) -> str:
    try:
        if source.startswith(("http://", "https://")):
            with _opener(source).open(source, timeout=HTTP_TIMEOUT_S) as answer:
                return str(answer.read().decode())
        return Path(source).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or getattr(exc, "reason", None) or "not a text"
        raise Wrong(f"{where}: {source}: cannot be read ({reason})") from None


def _bucketed(text: str, bounds: Sequence[float], counts: Sequence[float], where: str) -> Service:
    """Service times that are evenly distributed within each bucket."""
    if not counts or sum(counts) <= 0:
        raise Wrong(f"{where}: has no task")
    if list(bounds) != sorted(set(bounds)) or bounds[0] <= 0 or min(counts) < 0 or bounds[-1] > LONGEST_S:
        raise Wrong(
            f"{where}: bounds must increase from above 0 to at most {LONGEST_S:g} s, and no count may be negative"
        )
    edges = np.array([0.0, *bounds])
    cumulative = np.concatenate([[0.0], np.cumsum(counts)]) / sum(counts)
    mean_s = float(np.sum(np.diff(cumulative) * (edges[:-1] + edges[1:]) / 2))
    return Service(text, mean_s, partial(_by_buckets, cumulative, edges))


# Named functions, not lambdas: they are sent to other processes.


def _same(mean_s: float, _: np.random.Generator, count: int) -> Floats:
    return np.full(count, mean_s)


def _exponentially(mean_s: float, generator: np.random.Generator, count: int) -> Floats:
    return generator.exponential(mean_s, count)


def _lognormally(location: float, scale: float, generator: np.random.Generator, count: int) -> Floats:
    return generator.lognormal(location, scale, count)


def _by_buckets(cumulative: Floats, edges: Floats, generator: np.random.Generator, count: int) -> Floats:
    return np.interp(generator.random(count), cumulative, edges)


def _positive(text: str, where: str) -> float:
    time_s = seconds(text, where)
    if not 0 < time_s <= LONGEST_S:
        raise Wrong(f"{where}: a service time must be above 0 and at most {LONGEST_S:g} s, not {text!r}")
    return time_s
