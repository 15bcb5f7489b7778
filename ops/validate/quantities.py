"""Quantities of Kubernetes, `500m` or `2Gi`."""

import re
from collections.abc import Iterator
from typing import Any

from ops.validate.tree import Finding, Object, Tree, walk
from sluice_planner.quantity import parse_quantity

QUANTITIES = re.compile(r"(\.(requests|limits)\.[\w-]+|\.sizeLimit|\.persistence\.size)$")


def check(tree: Tree) -> Iterator[Finding]:
    """Values that are no quantity where one is required (the API server does not say where); requests above limits."""
    for each in tree.objects():
        for path, value in walk(each.body):
            if QUANTITIES.search(path) and isinstance(value, str | int | float):
                number = parse_quantity(value)
                if number is None or number < 0:
                    yield each.finding(path, f"{value} is not a quantity, as 500m or 2Gi")
            if isinstance(value, dict):
                yield from _requests_above_limits(each, path, value)


def _requests_above_limits(each: Object, path: str, resources: dict[str, Any]) -> Iterator[Finding]:
    requests, limits = resources.get("requests"), resources.get("limits")
    if isinstance(requests, dict) and isinstance(limits, dict):
        for name in sorted(requests.keys() & limits.keys()):
            request, limit = parse_quantity(requests[name]), parse_quantity(limits[name])
            if request is not None and limit is not None and request > limit:
                yield each.finding(f"{path}.requests.{name}", f"{requests[name]} is above the limit, {limits[name]}")
