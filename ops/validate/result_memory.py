"""Rules for Redis' memory: it holds the results per second that each overlay declares in an annotation."""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.contract.settings import ApiSettings
from apps.contract.states import CLOCKS_S
from apps.contract.topology import MESSAGE_TTL_S
from ops.validate.chart_values import memory_limit
from ops.validate.tree import Finding, Object, Tree, at

# Annotations of a ScaledObject: results per second, on average over a day, and bytes of one result as JSON.
RATE, SIZE = "sluice/results-per-s", "sluice/result-bytes"
# Measured by `python -m bench.record_bytes` and rounded up. tests/integration/test_redis_memory.py compares these
# numbers with a real Redis. RESULT_FACTOR covers the rounding of the memory allocator.
RECORD_BYTES, RESULT_FACTOR = 165, Decimal("1.15")
ENDED_BYTES = 20
KEY_BYTES = 170


def check(tree: Tree) -> Iterator[Finding]:
    """Check every overlay with every Redis."""
    for each in tree.objects("ScaledObject"):
        annotations = each.body["metadata"].get("annotations") or {}
        given = {name: _number(annotations.get(name)) for name in (RATE, SIZE)}
        for name, number in given.items():
            if number is None:
                message = "is missing or not a number above 0: Redis must have room for the results of a day"
                yield each.finding(f"metadata.annotations.{name}", message)
        if all(given.values()):
            for release in tree.objects("HelmRelease"):
                if release.name == "redis":
                    yield from _capacity(tree, each, release, given)


def bytes_per_s(result_bytes: Decimal, settings: dict[str, Any]) -> Decimal:
    """Bytes in Redis per (result per second), if each result has its own POST request with an Idempotency-Key."""
    result_ttl_s = Decimal(settings["result_ttl_s"])
    record = (RECORD_BYTES + RESULT_FACTOR * result_bytes) * result_ttl_s
    return record + ENDED_BYTES * (result_ttl_s + MESSAGE_TTL_S + CLOCKS_S) + KEY_BYTES * result_ttl_s * 24 / 25


def _capacity(tree: Tree, each: Object, release: Object, given: dict[str, Decimal | None]) -> Iterator[Finding]:
    limit = memory_limit(release)
    if not limit:  # chart_values.py reports this fault
        return
    settings = _settings(tree, each.target)
    usable = limit * Decimal(settings["results_full_share"])
    rate, size = Decimal(given[RATE] or 0), Decimal(given[SIZE] or 0)
    needed = rate * bytes_per_s(size, settings)
    if needed > usable:
        yield each.finding(
            f"metadata.annotations.{RATE}",
            f"{rate} results of {size} bytes per second need {needed / 2**20:.0f} MiB, but the API refuses tasks above"
            f" {usable / 2**20:.0f} MiB of the {limit / 2**20:.0f} MiB maxmemory in {release.file}"
            f" (at most {usable / bytes_per_s(size, settings):.1f} results per second)",
        )


def _settings(tree: Tree, target: str) -> dict[str, Any]:
    """The settings of the target's API that determine the memory, or their defaults."""
    found = {name: ApiSettings.model_fields[name].default for name in ("result_ttl_s", "results_full_share")}
    for api in tree.objects("Deployment", target=target):
        if api.name == "api":
            for variable in at(api.spec, "template.spec")["containers"][0].get("env") or []:
                name = variable["name"].lower()
                if name in found and _number(variable.get("value")) is not None:
                    found[name] = variable["value"]
    return {name: str(value) for name, value in found.items()}


def _number(text: object) -> Decimal | None:
    """The number in a text; None if it is not a number above 0."""
    try:
        number = Decimal(str(text))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
