"""The summary of an outcome: one list of numbers for the table, JSON, HTML and the comparison."""

from collections.abc import Callable
from dataclasses import dataclass

from sluice_planner.durations import shown
from sluice_planner.reasons import amount
from sluice_planner.simulation import Outcome

Value = float | None


@dataclass(frozen=True)
class Row:
    """A number of an outcome: key in JSON, label, getter and formatter. None: the event did not happen."""

    key: str
    words: str
    get: Callable[[Outcome], Value]
    show: Callable[[float], str] = amount

    def shown(self, outcome: Outcome) -> str:
        value = self.get(outcome)
        return "never" if value is None else self.show(value)


def _hours(hours: float) -> str:
    return f"{hours:,.2f}"


def _percent(part: float) -> str:
    return f"{part:.0%}"


def drain_s(outcome: Outcome) -> float | None:
    """The time from the peak backlog until no task waits; 0 if no task ever waited."""
    if not outcome.peak_waiting:
        return 0.0
    return None if outcome.drained_s is None else max(0.0, outcome.drained_s - outcome.peak_s)


ROWS = (
    Row("arrived", "tasks arrived", lambda outcome: outcome.arrived),
    Row("done", "tasks done", lambda outcome: outcome.done),
    Row("begun_again", "tasks restarted after a kill", lambda outcome: outcome.begun_again),
    Row("wait_mean_s", "wait, mean", lambda outcome: outcome.waits.mean_s, shown),
    Row("wait_p50_s", "wait, median", lambda outcome: outcome.waits.percentile_s(50), shown),
    Row("wait_p95_s", "wait, 95%", lambda outcome: outcome.waits.percentile_s(95), shown),
    Row("wait_p99_s", "wait, 99%", lambda outcome: outcome.waits.percentile_s(99), shown),
    Row("wait_max_s", "wait, max", lambda outcome: outcome.waits.max_s, shown),
    Row("oldest_max_s", "oldest waiting task", lambda outcome: max(each.oldest_s for each in outcome.samples), shown),
    Row("waiting_max", "peak backlog", lambda outcome: outcome.peak_waiting),
    Row("waiting_max_at_s", "peak backlog at", lambda outcome: outcome.peak_s, shown),
    Row("drained_at_s", "backlog empty at", lambda outcome: outcome.drained_s, shown),
    Row("drain_s", "drain time", drain_s, shown),
    Row("replicas_max", "peak replicas", lambda outcome: max(each.desired for each in outcome.samples)),
    Row("max_ready_at_s", "maximum ready at", lambda outcome: outcome.max_reached_s, shown),
    Row("pending_max", "peak pending pods", lambda outcome: outcome.pending_max),
    Row("changes", "replica changes", lambda outcome: sum(each.before != each.after for each in outcome.events)),
    Row("pod_hours", "pod-hours", lambda outcome: outcome.pod_hours, _hours),
    Row("busy", "pod utilization", lambda outcome: outcome.busy, _percent),
    Row("end_s", "simulated until", lambda outcome: outcome.end_s, shown),
)


def numbers(outcome: Outcome) -> dict[str, Value]:
    """The numbers by key, rounded to milliseconds or thousandths."""
    values = {row.key: row.get(outcome) for row in ROWS}
    return {key: None if value is None else round(value, 3) for key, value in values.items()}
