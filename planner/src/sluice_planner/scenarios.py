"""Scenarios for the HPA alone (`sluice hpa`), to compare it with other implementations."""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice_planner import hpa_spec
from sluice_planner.fields import Field, read_json
from sluice_planner.hpa_controller import NS_PER_S, Memory, Seen, Settings, step

SYNCS_MAX = 1_000_000
# above it thousandths do not fit the controller's 64-bit integers
METRIC_MAX = 9e15

_FIELDS = {
    "sync_period_s": 15,
    "downscale_stabilization_s": 300,
    "tolerance": 0.1,
    "status_delay_s": 0,
}
_SPEC = ("minReplicas", "maxReplicas", "metrics", "behavior", "scaleTargetRef")


@dataclass(frozen=True)
class Series:
    """A metric over time: each value, in thousandths (None: an error), holds until the next."""

    samples: tuple[tuple[int, int | None], ...]

    def at(self, now_ns: int) -> int | None:
        number = bisect_right(self.samples, now_ns, key=lambda sample: sample[0])
        return self.samples[number - 1][1] if number else None


@dataclass(frozen=True)
class Scenario:
    """An HPA's settings and inputs. Times are in nanoseconds."""

    settings: Settings
    initial_replicas: int
    period_ns: int
    status_delay_ns: int
    duration_ns: int
    series: tuple[Series, ...]


def run(scenario: Scenario) -> list[tuple[float, int]]:
    """The desired replicas after each sync, the first of them after one period: [(t_s, replicas)]."""
    memory: Memory | None = None
    asked = [(0, scenario.initial_replicas)]
    desired: list[tuple[float, int]] = []
    for now_ns in range(scenario.period_ns, scenario.duration_ns + 1, scenario.period_ns):
        seen = Seen(
            now_ns=now_ns,
            spec_replicas=asked[-1][1],
            status_replicas=_status(scenario, asked, now_ns),
            metrics_milli=[series.at(now_ns) for series in scenario.series],
        )
        decision, memory = step(scenario.settings, memory, seen)
        if decision.replicas != asked[-1][1]:
            asked.append((now_ns, decision.replicas))
        desired.append((now_ns / NS_PER_S, decision.replicas))
    return desired


def _status(scenario: Scenario, asked: list[tuple[int, int]], now_ns: int) -> int:
    """The existing replicas: the desired ones, `status_delay_ns` later."""
    number = bisect_right(asked, now_ns - scenario.status_delay_ns, key=lambda change: change[0])
    return asked[max(number, 1) - 1][1]


def read(path: Path) -> Scenario | list[Scenario]:
    """The scenarios of a file: one, or a list of them. Raises Wrong with the scenario and the field."""
    field = read_json(path)
    if not isinstance(field.value, list):
        return scenario(field)
    return [scenario(Field(each, f"{path}: scenario {number}")) for number, each in enumerate(field.value)]


def scenario(field: Field) -> Scenario:
    """Read one scenario; missing fields have Kubernetes' defaults."""
    field.only("spec", "initial_replicas", "metric", "duration_s", *_FIELDS)
    spec = field.get("spec").only(*_SPEC)
    targets = hpa_spec.targets(spec.get("metrics"))
    numbers = {name: field.get(name).default(value).number(0) for name, value in _FIELDS.items()}
    minimum = spec.get("minReplicas").default(1).integer(1)
    maximum = spec.get("maxReplicas").integer(1)
    if maximum < minimum:
        raise spec.get("maxReplicas").wrong(f"must not be below minReplicas, {minimum}")
    period_ns, duration_ns = _ns(numbers["sync_period_s"]), _ns(field.get("duration_s").number(0))
    if period_ns <= 0 or duration_ns > SYNCS_MAX * period_ns:
        raise field.get("sync_period_s").wrong(f"must be above 0, and duration_s at most {SYNCS_MAX} times as long")
    return Scenario(
        settings=Settings(
            minimum,
            maximum,
            tuple(targets.values()),
            hpa_spec.behavior(spec.get("behavior")),
            numbers["tolerance"],
            numbers["downscale_stabilization_s"],
        ),
        initial_replicas=field.get("initial_replicas").integer(0),
        period_ns=period_ns,
        status_delay_ns=_ns(numbers["status_delay_s"]),
        duration_ns=duration_ns,
        series=tuple(_series(field.get("metric"), name) for name in targets),
    )


def _series(field: Field, name: str) -> Series:
    """The series of a metric: `metric` is a mapping of names to series, or one series for all metrics."""
    series = field if isinstance(field.value, list) else field.get(name)
    samples = [_sample(entry) for entry in series.items()]
    if samples != sorted(samples, key=lambda sample: sample[0]):
        raise series.wrong("must be in order of time")
    return Series(tuple(samples))


def _sample(field: Field) -> tuple[int, int | None]:
    pair: list[Any] = field.value
    if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004 - a pair
        raise field.wrong("must be [t_s, value]")
    at, value = (Field(each, field.where, f"{field.path}[{number}]") for number, each in enumerate(pair))
    return _ns(at.number(0)), None if value.value is None else round(value.number(0, METRIC_MAX) * 1000)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
