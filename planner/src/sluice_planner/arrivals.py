"""When tasks arrive: a rate that changes, or counts, as a cumulative function of time.

Everything is a piecewise linear `count(t)`: its slope is a rate, a jump is a burst. Random arrivals are a Poisson
process of that intensity, made by walking the count's axis in exponential steps; counted arrivals are evenly spaced.
Written as:
    20/s                          a constant rate, without end
    burst:29000@60                so many tasks at once, here at 60 s (default: 0)
    steps:0=5/s,600=50/s,1200=0/s each rate from its time on
    trace:FILE.csv                rows of time and count, each spread over the time until the next row
    sine:mean=20/s,peak=40/s,period=24h
    shape:FILE.py,per-user=0.05/s the users of a Locust shape, each at that rate
Several are joined by ` + `.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sluice_planner.durations import DAY_S, per_second, seconds
from sluice_planner.fields import Wrong, split_kind
from sluice_planner.locust_shape import TICK_S, users

Floats = NDArray[np.float64]

BLOCK = 65_536
# steps that approximate one period of a sine: 5 minutes of a day
SINE_STEPS = 288
# a rate "without end" ends here: no simulation is longer
HORIZON_S = 366 * DAY_S


@dataclass(frozen=True)
class Arrivals:
    """Knots of the cumulative count. `random`: a Poisson process; otherwise exactly this count, evenly spaced."""

    at_s: tuple[float, ...]
    count: tuple[float, ...]
    random: bool

    @property
    def end_s(self) -> float:
        """The time of the last arrival."""
        return next(at_s for at_s, count in zip(self.at_s, self.count, strict=True) if count >= self.count[-1])

    def expected(self, until_s: float) -> float:
        """The expected number of arrivals until then."""
        return float(np.interp(until_s, self.at_s, self.count))


class Source:
    """Generates arrival times in blocks, so that memory does not grow with their number."""

    def __init__(self, arrivals: Arrivals, generator: np.random.Generator) -> None:
        self._arrivals = arrivals
        self._generator = generator
        self._made: Floats = np.empty(0)
        self._walked = 0.0

    def until(self, end_s: float) -> Floats:
        """The times before `end_s` that no earlier call returned, in order."""
        parts = []
        while not len(self._made) or self._made[-1] < end_s:
            parts.append(self._made)
            self._made = self._block()
            if not len(self._made):
                break
        cut = int(np.searchsorted(self._made, end_s))
        parts.append(self._made[:cut])
        self._made = self._made[cut:]
        return np.concatenate(parts)

    def _block(self) -> Floats:
        total = self._arrivals.count[-1]
        if self._arrivals.random:
            counts = self._walked + np.cumsum(self._generator.standard_exponential(BLOCK))
            self._walked = float(counts[-1])
            counts = counts[counts < total]
        else:
            counts = np.arange(self._walked, min(self._walked + BLOCK, round(total))) + 0.5
            self._walked += len(counts)
        # the two knots of a jump have the same time; those of a pause have the same count, which no task has
        return np.interp(counts, self._arrivals.count, self._arrivals.at_s)


def read(text: str, where: str) -> list[Arrivals]:
    """Parse arrivals, written as the module describes. Raises Wrong if they are malformed, negative or empty."""
    return [_part(part.strip(), where) for part in text.split(" + ")]


def _part(text: str, where: str) -> Arrivals:
    kinds: dict[str, Callable[[str, str], Arrivals]] = {
        "constant": _constant,
        "burst": _burst,
        "steps": _steps,
        "trace": _trace,
        "sine": _sine,
        "shape": _shape,
    }
    kind, rest = split_kind(text, kinds, where)
    found = kinds[kind](rest, where)
    if found.count[-1] <= 0:
        raise Wrong(f"{where}: {text!r} generates no task")
    return found


def _constant(text: str, where: str) -> Arrivals:
    rate = per_second(text, where)
    return Arrivals((0, HORIZON_S), (0, rate * HORIZON_S), random=True)


def _burst(text: str, where: str) -> Arrivals:
    count, _, at = text.partition("@")
    if not count.isdigit():
        raise Wrong(f"{where}: a burst must be a number of tasks such as burst:29000@60, not {text!r}")
    return burst(int(count), seconds(at or "0", where))


def burst(count: int, at_s: float) -> Arrivals:
    """So many tasks at one time."""
    return Arrivals((at_s, at_s), (0, count), random=False)


def _steps(text: str, where: str) -> Arrivals:
    pairs = [step.split("=") for step in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):  # noqa: PLR2004 - a pair
        raise Wrong(f"{where}: steps must read time=rate,time=rate, not {text!r}")
    times = [seconds(at, where) for at, _ in pairs]
    rates = [per_second(rate, where) for _, rate in pairs]
    if times != sorted(set(times)):
        raise Wrong(f"{where}: the times of steps must increase, not {text!r}")
    return _rates([*times, HORIZON_S], rates)


def _sine(text: str, where: str) -> Arrivals:
    given = dict(part.partition("=")[::2] for part in text.split(","))
    if not {"mean", "peak"} <= set(given) <= {"mean", "peak", "period"}:
        raise Wrong(f"{where}: a sine must read mean=20/s,peak=40/s,period=24h, not {text!r}")
    mean, peak = per_second(given["mean"], where), per_second(given["peak"], where)
    period_s = seconds(given.get("period", "24h"), where)
    if not mean <= peak <= 2 * mean or period_s <= 0:
        raise Wrong(f"{where}: a sine's peak must be between its mean and twice that, its period above 0")
    step_s = period_s / SINE_STEPS
    edges = np.arange(0, min(HORIZON_S, 400 * period_s), step_s)
    # it starts at its minimum, as a day does
    rates = mean - (peak - mean) * np.cos(2 * math.pi * (edges[:-1] + step_s / 2) / period_s)
    return _rates(edges.tolist(), rates.tolist())


def _shape(text: str, where: str) -> Arrivals:
    name, _, rate = text.partition(",per-user=")
    if not rate:
        raise Wrong(f"{where}: a shape must read shape:FILE.py,per-user=0.05/s, not {text!r}")
    each = per_second(rate, where)
    found = users(Path(name), where)
    if not found:
        raise Wrong(f"{where}: {name}: its shape has no user at any time")
    return _rates([number * TICK_S for number in range(len(found) + 1)], [count * each for count in found])


def _rates(edges_s: Sequence[float], rates: Sequence[float]) -> Arrivals:
    counts = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * rates)])
    return Arrivals(tuple(edges_s), tuple(counts.tolist()), random=True)


def _trace(text: str, where: str) -> Arrivals:
    try:
        rows = [row for row in csv.reader(Path(text).read_text().splitlines()) if row and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError) as exc:
        raise Wrong(f"{where}: {text}: cannot be read ({getattr(exc, 'strerror', None) or 'not a text'})") from None
    numbers = [_row(row, f"{text}: row {number}") for number, row in enumerate(rows, 1) if not _is_header(number, row)]
    return counted(numbers, f"{where}: {text}")


def _is_header(number: int, row: Sequence[str]) -> bool:
    return number == 1 and not any(character.isdigit() for character in "".join(row))


def _row(row: Sequence[str], where: str) -> tuple[float, float]:
    try:
        at_s, count = (float(cell) for cell in row)
    except ValueError:
        raise Wrong(f"{where}: must be a time in seconds and a count, not {','.join(row)!r}") from None
    return at_s, count


def counted(rows: Iterable[tuple[float, float]], where: str) -> Arrivals:
    """Rows of time and count: each count is spread evenly until the next row's time, the last over an equal span."""
    rows = list(rows)
    if not rows:
        raise Wrong(f"{where}: has no row of time and count")
    times, counts = [at_s for at_s, _ in rows], [count for _, count in rows]
    if times != sorted(set(times)) or times[0] < 0:
        raise Wrong(f"{where}: the times must increase, and not be negative")
    if not all(0 <= count < math.inf for count in counts):
        raise Wrong(f"{where}: no count may be negative")
    last_s = times[-1] - times[-2] if len(times) > 1 else 0.0
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    return Arrivals((*times, times[-1] + last_s), tuple(cumulative.tolist()), random=False)
