"""Reports an outcome: table, plot and decisions for a terminal, and JSON."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotext

from sluice_planner.durations import shown
from sluice_planner.simulation import Event, Outcome
from sluice_planner.summary import ROWS, numbers
from sluice_planner.workload import Workload

DECISIONS_MAX = 40
PLOT_LINES = 14
PLOT_WIDTH_MAX = 120
TICKS = 6


@dataclass(frozen=True)
class Simulated:
    """A workload with its outcome and the assumptions made for it."""

    workload: Workload
    outcome: Outcome
    assumed: tuple[str, ...]


def text(each: Simulated, *, plot: bool = True) -> str:
    """The report for a terminal."""
    outcome = each.outcome
    parts = [f"{each.workload.where}: {outcome.minimum} to {outcome.maximum} replicas", *assumptions(each)]
    parts += ["", *table([(row.words, row.shown(outcome)) for row in ROWS])]
    if plot:
        parts += ["", _plot(outcome)]
    return "\n".join([*parts, "", *decisions(outcome.events, outcome.end_s)])


def assumptions(each: Simulated) -> list[str]:
    """The assumptions, a line each."""
    return [f"assumed: {sentence}" for sentence in each.assumed]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def sentence(event: Event) -> str:
    """A decision: its time, its reason and the change."""
    step = f"{event.before} -> {event.after}" if event.before != event.after else f"stays {event.after}"
    return f"t={event.at_s:g} s: {event.reason}: {step}"


def decisions(events: Sequence[Event], end_s: float) -> list[str]:
    """The decisions as sentences; of a long list the first and the last ones."""
    lines = [sentence(event) for event in events]
    if not lines:
        return [f"The replicas never change in {shown(end_s)}."]
    if len(lines) > DECISIONS_MAX:
        left_out = len(lines) - DECISIONS_MAX
        lines[DECISIONS_MAX - 5 : -5] = [f"... {left_out} more decisions: --json has them all"]
    return lines


def data(each: Simulated) -> dict[str, Any]:
    """The data of an outcome for JSON."""
    outcome = each.outcome
    return {
        "name": outcome.name,
        "where": each.workload.where,
        "assumed": list(each.assumed),
        "min": outcome.minimum,
        "max": outcome.maximum,
        "summary": numbers(outcome),
        "decisions": [event._asdict() | {"text": sentence(event)} for event in outcome.events],
        "samples": [sample._asdict() for sample in outcome.samples],
    }


def as_json(simulated: Sequence[Simulated]) -> str:
    """All outcomes as JSON."""
    return json.dumps({"workloads": [data(each) for each in simulated]})


def _plot(outcome: Outcome) -> str:
    """Two charts with the same time axis: waiting tasks, and replicas."""
    times = [sample.at_s for sample in outcome.samples]
    waiting = [sample.waiting for sample in outcome.samples]
    desired, ready = ([getattr(sample, name) for sample in outcome.samples] for name in ("desired", "ready"))
    replicas = _chart("desired (#) and ready (o) replicas", times, [(desired, "#"), (ready, "o")])
    return "\n".join([_chart("waiting tasks", times, [(waiting, "braille")]), replicas])


def _chart(title: str, times: Sequence[float], lines: Sequence[tuple[Sequence[float], str]]) -> str:
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(shutil.get_terminal_size().columns, PLOT_WIDTH_MAX), PLOT_LINES)
    plotext.title(title)
    for values, marker in lines:
        plotext.plot(times, values, marker=marker)
    ticks = [times[0] + (times[-1] - times[0]) * part / TICKS for part in range(TICKS + 1)]
    plotext.xticks(ticks, [shown(tick) for tick in ticks])
    return "\n".join(line.rstrip() for line in plotext.uncolorize(plotext.build()).splitlines())
