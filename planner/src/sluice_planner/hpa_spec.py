"""Reads a HorizontalPodAutoscaler's spec (autoscaling/v2) as the API does: strictly, and with its defaults."""

from sluice_planner.fields import Field
from sluice_planner.hpa_controller import DOWN_DEFAULT, UP_DEFAULT, Behavior, Policy, Rules
from sluice_planner.quantity import milli, quantity

LONGEST_PERIOD_S = 1800
LONGEST_WINDOW_S = 3600


def behavior(field: Field) -> Behavior | None:
    """`spec.behavior`: None, the legacy algorithm, stays None; `{}` gets the defaults."""
    if field.value is None:
        return None
    field.only("scaleUp", "scaleDown")
    return Behavior(_rules(field.get("scaleUp"), UP_DEFAULT), _rules(field.get("scaleDown"), DOWN_DEFAULT))


def targets(field: Field) -> dict[str, int]:
    """`spec.metrics`: each metric's name and AverageValue in thousandths."""
    found: dict[str, int] = {}
    for metric in field.items():
        metric.only("type", "external").get("type").text({"External"})
        external = metric.get("external").only("metric", "target")
        name = external.get("metric").only("name", "selector").get("name").text()
        target = external.get("target").only("type", "averageValue")
        target.get("type").text({"AverageValue"})
        found[name] = milli(target.get("averageValue"))
        if found[name] <= 0:
            raise target.get("averageValue").wrong("must be above 0")
    if not found:
        raise field.wrong("has no metric")
    return found


def _rules(field: Field, default: Rules) -> Rules:
    if field.value is None:
        return default
    field.only("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")
    window, tolerance = field.get("stabilizationWindowSeconds"), field.get("tolerance")
    select = field.get("selectPolicy").default(default.select).text({"Max", "Min", "Disabled"})
    return Rules(
        policies=default.policies if field.get("policies").value is None else _policies(field.get("policies")),
        select=select,  # type: ignore[arg-type]  # one of the three, as just checked
        window_s=default.window_s if window.value is None else window.integer(0, LONGEST_WINDOW_S),
        tolerance=default.tolerance if tolerance.value is None else _tolerance(tolerance),
    )


def _policies(field: Field) -> tuple[Policy, ...]:
    policies = tuple(_policy(entry.only("type", "value", "periodSeconds")) for entry in field.items())
    if not policies:
        raise field.wrong("must have at least one policy")
    return policies


def _policy(field: Field) -> Policy:
    return Policy(
        kind=field.get("type").text({"Pods", "Percent"}),  # type: ignore[arg-type]  # one of the two
        value=field.get("value").integer(1),
        period_s=field.get("periodSeconds").integer(1, LONGEST_PERIOD_S),
    )


def _tolerance(field: Field) -> float:
    if (tolerance := quantity(field)) < 0:
        raise field.wrong("must not be negative")
    return float(tolerance)
