"""Quantities of Kubernetes, `500m` or `2Gi`, and times, `60s`."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from ops.validate.tree import Finding, Object, Tree, walk

QUANTITIES = re.compile(r"(\.(requests|limits)\.[\w-]+|\.sizeLimit|\.persistence\.size)$")

UNITS = (
    {unit: Decimal(1024) ** power for power, unit in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))}
    | {unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}
    | {unit: Decimal(1000) ** -power for power, unit in enumerate(("m", "u", "n"), start=1)}
)


def quantity(text: object) -> Decimal | None:
    """A quantity as a number; None if it is none."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+))?([A-Za-z]*)", str(text))
    if match is None or match[3] not in UNITS:
        return None
    return Decimal(match[1]) * Decimal(10) ** int(match[2] or 0) * UNITS[match[3]]


def seconds(text: object) -> Decimal:
    """`75s`, `1m 30s`, `1h30m`, `60` as seconds; 0 if it is no time."""
    if not re.fullmatch(r"(\d+[smh]? ?)+", str(text)):
        return Decimal(0)
    parts = re.findall(r"(\d+)([smh]?)", str(text))
    return sum((Decimal(number) * {"m": 60, "h": 3600}.get(unit, 1) for number, unit in parts), Decimal(0))


def check(tree: Tree) -> Iterator[Finding]:
    """Values that are no quantity where one is required (the API server does not say where); requests above limits."""
    for each in tree.objects():
        for path, value in walk(each.body):
            if QUANTITIES.search(path) and isinstance(value, str | int | float) and quantity(value) is None:
                yield each.finding(path, f"{value} is not a quantity, as 500m or 2Gi")
            if isinstance(value, dict):
                yield from _requests_above_limits(each, path, value)


def _requests_above_limits(each: Object, path: str, resources: dict[str, Any]) -> Iterator[Finding]:
    requests, limits = resources.get("requests"), resources.get("limits")
    if isinstance(requests, dict) and isinstance(limits, dict):
        for name in sorted(requests.keys() & limits.keys()):
            request, limit = quantity(requests[name]), quantity(limits[name])
            if request is not None and limit is not None and request > limit:
                yield each.finding(f"{path}.requests.{name}", f"{requests[name]} is above the limit, {limits[name]}")
