"""A recorded burst: the arrivals, and the reaction of the real system.

The file is either a recording:
    {"min", "max", "value", "sync_s", "service_s", "arrivals": [[t_s, count]],
     "samples": [{"t_s", "ready", "desired", "depth"}]}
where each count arrived at once, and the depth includes unacked messages; or the answer to a Prometheus range query
such as {__name__=~"rabbitmq_queue_messages|..."} with the series of SERIES.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sluice_planner.fields import Field, read_json

# the names that each part of a curve may have in Prometheus
SERIES = {
    "depth": ("rabbitmq_queue_messages", "rabbitmq_detailed_queue_messages"),
    "published": ("rabbitmq_queue_messages_published_total", "rabbitmq_detailed_queue_messages_published_total"),
    "ready": ("kube_deployment_status_replicas_ready",),
    "desired": ("kube_horizontalpodautoscaler_status_desired_replicas", "kube_deployment_spec_replicas"),
}
SAMPLES_MAX = 1_000_000


class Point(NamedTuple):
    """The system at one time."""

    at_s: float
    ready: float
    desired: float
    depth: float


@dataclass(frozen=True)
class Curve:
    """Times count from the first sample. Numbers that the recording lacks are None: the overlay has them."""

    arrivals: tuple[tuple[float, int], ...]
    points: tuple[Point, ...]
    minimum: int | None = None
    maximum: int | None = None
    value: float | None = None
    sync_s: float | None = None
    service_s: float | None = None

    @property
    def start_s(self) -> float:
        """The time of the first arrival."""
        return self.arrivals[0][0]


def read(path: Path) -> Curve:
    """Read a recording or a Prometheus answer. Raises Wrong if the file is neither, or has no arrivals or samples."""
    field = read_json(path)
    curve = _prometheus(field) if "data" in field.mapping() else _own(field)
    if not curve.arrivals:
        raise field.get("arrivals").wrong("has no arrival")
    if not 1 < len(curve.points) <= SAMPLES_MAX:
        raise field.get("samples").wrong(f"must be 2 to {SAMPLES_MAX}")
    return curve


def _own(field: Field) -> Curve:
    def of(name: str, least: float) -> float | None:
        return None if field.get(name).value is None else field.get(name).number(least)

    minimum, maximum = of("min", 0), of("max", 1)
    return Curve(
        arrivals=tuple(_arrival(entry) for entry in field.get("arrivals").items()),
        points=_in_order(field, [_point(entry) for entry in field.get("samples").items()]),
        minimum=None if minimum is None else int(minimum),
        maximum=None if maximum is None else int(maximum),
        value=of("value", 0.001),
        sync_s=of("sync_s", 0.1),
        service_s=of("service_s", 0.001),
    )


def _arrival(field: Field) -> tuple[float, int]:
    pair = list(field.items())
    if len(pair) != 2:  # noqa: PLR2004 - a pair
        raise field.wrong("must be [t_s, count]")
    return pair[0].number(0), pair[1].integer()


def _point(field: Field) -> Point:
    return Point(field.get("t_s").number(0), *(field.get(name).number(0) for name in ("ready", "desired", "depth")))


def _in_order(field: Field, points: Sequence[Point]) -> tuple[Point, ...]:
    if [point.at_s for point in points] != sorted({point.at_s for point in points}):
        raise field.get("samples").wrong("must be in order of time")
    return tuple(points)


def _prometheus(field: Field) -> Curve:
    """Use the first series found of each part; at missing times a value stays the same."""
    data = field.get("data")
    data.get("resultType").text({"matrix"})
    found: dict[str, list[tuple[float, float]]] = {}
    for entry in data.get("result").items():
        name = entry.get("metric").get("__name__").default("").text()
        found.setdefault(name, [_value(each) for each in entry.get("values").items()])
    parts = {part: next((found[name] for name in names if name in found), None) for part, names in SERIES.items()}
    for part, series in parts.items():
        if not series:
            raise data.get("result").wrong(f"has no series {' or '.join(SERIES[part])}")
    series_of = {part: series for part, series in parts.items() if series}
    start_s = min(series[0][0] for series in series_of.values())
    times = sorted({at_s for series in series_of.values() for at_s, _ in series})
    held = {part: dict(_held(series, times)) for part, series in series_of.items()}
    points = [Point(at_s - start_s, *(held[part][at_s] for part in ("ready", "desired", "depth"))) for at_s in times]
    return Curve(_increases(series_of["published"], start_s), tuple(points))


def _value(field: Field) -> tuple[float, float]:
    pair = list(field.items())
    try:
        return pair[0].number(), float(pair[1].text())
    except (ValueError, IndexError):
        raise field.wrong('must be [time, "value"]') from None


def _held(series: Sequence[tuple[float, float]], times: Iterable[float]) -> Iterable[tuple[float, float]]:
    values, value = dict(series), series[0][1]
    for at_s in times:
        value = values.get(at_s, value)
        yield at_s, value


def _increases(series: Sequence[tuple[float, float]], start_s: float) -> tuple[tuple[float, int], ...]:
    """The increases of a counter, each at the end of its interval; after a reset the counter starts from 0."""
    steps = []
    for (_, before), (at_s, after) in pairwise(series):
        if after != before:
            steps.append((at_s - start_s, round(after - before if after > before else after)))
    return tuple(step for step in steps if step[1] > 0)
