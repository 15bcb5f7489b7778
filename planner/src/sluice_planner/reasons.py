"""A scaling decision in words."""

from sluice_planner.hpa_controller import Decision, Settings, Why
from sluice_planner.workload import Scaler


def amount(number: float) -> str:
    """Format a number with thousands separators and without needless decimals."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3g}"


def reason(scaler: Scaler, settings: Settings, metrics_milli: list[int | None], decision: Decision) -> str:
    """Why the HPA set these replicas: the metric's recommendation, and what limited it."""
    if decision.why in {Why.ABOVE_MAX, Why.BELOW_MIN, Why.DISABLED, Why.NO_METRIC}:
        return str(decision.why)
    parts = [
        _recommendation(scaler, metrics_milli, decision),
        _stabilization(settings, decision),
        _limit(scaler, decision),
    ]
    return ", ".join(part for part in parts if part)


def _recommendation(scaler: Scaler, metrics_milli: list[int | None], decision: Decision) -> str:
    """The highest recommendation of a trigger: `Test_Query: 29,000 / 1000 recommends 29`."""
    number = decision.proposals.index(decision.wanted)
    trigger, milli = scaler.triggers[number], metrics_milli[number]
    assert milli is not None  # noqa: S101 - a failed metric recommends nothing
    return f"{trigger.queue}: {amount(milli / 1000)} / {trigger.value:g} recommends {decision.wanted}"


def _stabilization(settings: Settings, decision: Decision) -> str:
    if decision.stabilized is None or decision.wanted is None or decision.stabilized == decision.wanted:
        return ""
    if decision.stabilized > decision.wanted:
        window_s = settings.downscale_stabilization_s
        if settings.behavior and settings.behavior.down.window_s is not None:
            window_s = settings.behavior.down.window_s
        return f"the highest recommendation of the last {window_s:g} s is {decision.stabilized}"
    window_s = (settings.behavior and settings.behavior.up.window_s) or 0
    return f"the lowest recommendation of the last {window_s:g} s is {decision.stabilized}"


def _limit(scaler: Scaler, decision: Decision) -> str:
    if decision.why is Why.UP_LIMIT:
        rule = "the legacy limit (double, or 4)" if scaler.behavior is None else "scaleUp's policies"
        return f"{rule} {'allows' if scaler.behavior is None else 'allow'} {decision.replicas}"
    if decision.why is Why.DOWN_LIMIT:
        return f"scaleDown's policies allow {decision.replicas}"
    if decision.why in {Why.TOO_MANY, Why.TOO_FEW}:
        return f"{decision.why} is {decision.replicas}"
    return str(decision.why) if decision.why is Why.PARTLY_NO_METRIC else ""
