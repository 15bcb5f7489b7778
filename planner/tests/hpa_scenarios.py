"""Random scenarios for the HPA: behaviors, windows, policies, tolerances, errors, late status, invalid specs."""

from random import Random
from typing import Any

TARGETS = {"1000": 1000.0, "10": 10.0, "2500m": 2.5, "1k": 1000.0, "7": 7.0}
# people write the last one for "no limit"; the controller's integers wrap around for it
COUNTS = (1, 2, 3, 4, 5, 10, 30, 2147483647)
PERCENTS = (1, 10, 33, 50, 99, 100, 150, 400, 2147483647)
PERIODS_S = (1, 14, 15, 16, 30, 45, 60, 100, 180, 600, 1800)
WINDOWS_S = (0, 1, 14, 15, 16, 30, 45, 60, 100, 300, 3600)
TOLERANCES = ("0", "0.05", "100m", "0.1", "0.25", "1", "50e-3")


def scenario(random: Random) -> dict[str, Any]:
    """One scenario as `sluice hpa` reads it, with every field written out."""
    minimum = random.choice((1, 1, 2, 3, 8))
    maximum = minimum + random.choice((0, 1, 4, 10, 28, 60, 998))
    period_s = random.choice((15, 15, 15, 15, 2, 5, 7.5, 30))
    targets = {f"m{number}": random.choice(list(TARGETS)) for number in range(random.choice((1, 1, 1, 2, 3)))}
    duration_s = period_s * random.choice((20, 60, 120))
    spec: dict[str, Any] = {"minReplicas": minimum, "maxReplicas": maximum}
    spec["metrics"] = [_metric(name, target) for name, target in targets.items()]
    if random.random() < 0.75:
        spec["behavior"] = _behavior(random)
    return {
        "spec": spec,
        "initial_replicas": random.choice((minimum, minimum, maximum, random.randint(0, maximum + 5))),
        "sync_period_s": period_s,
        "downscale_stabilization_s": random.choice((300, 300, 0, 10.5, 60, 15, 45)),
        "tolerance": random.choice((0.1, 0.1, 0, 0.05, 0.3)),
        "metric": {name: _series(random, TARGETS[target], maximum, duration_s) for name, target in targets.items()},
        "status_delay_s": random.choice((0, 0, 0, 2, 15, 20, 47)),
        "duration_s": duration_s,
    }


def broken(random: Random, good: dict[str, Any]) -> dict[str, Any]:
    """The scenario with one fault that the API must refuse."""
    spec = good["spec"]
    rules = spec.setdefault("behavior", {}).setdefault(random.choice(("scaleUp", "scaleDown")), {})
    policy = {"type": "Pods", "value": 1, "periodSeconds": 15}
    what, value = random.choice(
        (
            ("policies", []),
            ("policies", [policy | {"value": 0}]),
            ("policies", [policy | {"periodSeconds": 1801}]),
            ("policies", [policy | {"periodSeconds": 0}]),
            ("policies", [policy | {"type": "Percentage"}]),
            ("policies", [policy | {"periodSecond": 15}]),
            ("stabilizationWindowSeconds", 3601),
            ("stabilizationWindowSeconds", -1),
            ("stabilizationWindow", 1),
            ("stabilizationWindowSeconds", "300"),
            ("selectPolicy", "max"),
            ("tolerance", "-0.1"),
            ("tolerance", "10%"),
        )
    )
    rules[what] = value
    return good


def _metric(name: str, target: str) -> dict[str, Any]:
    external = {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": target}}
    return {"type": "External", "external": external}


def _behavior(random: Random) -> dict[str, Any]:
    return {side: _rules(random) for side in ("scaleUp", "scaleDown") if random.random() < 0.8}


def _rules(random: Random) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if random.random() < 0.7:
        rules["stabilizationWindowSeconds"] = random.choice(WINDOWS_S)
    if random.random() < 0.6:
        rules["selectPolicy"] = random.choice(("Max", "Max", "Min", "Min", "Disabled"))
    if random.random() < 0.7:
        rules["policies"] = [_policy(random) for _ in range(random.choice((1, 1, 2, 3)))]
    if random.random() < 0.3:
        rules["tolerance"] = random.choice(TOLERANCES)
    return rules


def _policy(random: Random) -> dict[str, Any]:
    kind, values = random.choice((("Pods", COUNTS), ("Percent", PERCENTS)))
    return {"type": kind, "value": random.choice(values), "periodSeconds": random.choice(PERIODS_S)}


def _series(random: Random, target: float, maximum: int, duration_s: float) -> list[list[float | None]]:
    """Steps of a metric: some are errors, and many are at the limits of a tolerance."""
    times = sorted(random.uniform(0, duration_s) for _ in range(random.choice((1, 3, 8, 20))))
    return [[0.0, target], *([round(at_s), _value(random, target, maximum)] for at_s in times)]


def _value(random: Random, target: float, maximum: int) -> float | None:
    if random.random() < 0.1:
        return None
    edge = random.choice((0, 0.5, 0.899, 0.9, 0.95, 1, 1.05, 1.1, 1.101, 1.25, 2))
    value = target * edge * random.choice((0, 1, 2, maximum // 2, maximum, random.randint(0, 2 * maximum)))
    return round(value, 3)
