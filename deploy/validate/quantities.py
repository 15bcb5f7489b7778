"""Kubernetes quantities: `500m`, `2Gi`."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from deploy.validate.tree import Finding, Object

UNITS = (
    {unit: Decimal(1024) ** power for power, unit in enumerate(("", "Ki", "Mi", "Gi", "Ti"))}
    | {unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T"), start=1)}
    | {"m": Decimal("0.001")}
)


def quantity(text: str | float) -> Decimal:
    """A quantity as a number. ValueError if it is none."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if match is None or match[2] not in UNITS:
        raise ValueError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * UNITS[match[2]]


def limits_below_requests(each: Object, where: str, resources: dict[str, Any]) -> Iterator[Finding]:
    """A limit below its request: the API server would refuse the pod."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in sorted(requests.keys() & limits.keys()):
        if limits[name] is not None and quantity(limits[name]) < quantity(requests[name]):
            yield each.finding(f"{where}.limits.{name}", f"{limits[name]} is below the request of {requests[name]}")
