"""An outcome for a terminal: table, plot and decisions; and as JSON."""

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
    """A workload, what became of it, and what was assumed on the way."""

    workload: Workload
    outcome: Outcome
    assumed: tuple[str, ...]


def text(each: Simulated, *, plot: bool = True) -> str:
    """For people at a terminal."""
    outcome = each.outcome
    parts = [f"{each.workload.where}: {outcome.minimum} to {outcome.maximum} replicas", *assumptions(each)]
    parts += ["", *table([(row.words, row.shown(outcome)) for row in ROWS])]
    if plot:
        parts += ["", _plot(outcome)]
    return "\n".join([*parts, "", *decisions(outcome.events, outcome.end_s)])


def assumptions(each: Simulated) -> list[str]:
    """What was not said and is taken to be so."""
    return [f"assumed: {sentence}" for sentence in each.assumed]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def sentence(event: Event) -> str:
    """One decision: when, from what to what, and why."""
    step = f"{event.before} -> {event.after}" if event.before != event.after else f"stays {event.after}"
    return f"t={event.at_s:g} s: {event.reason}: {step}"


def decisions(events: Sequence[Event], end_s: float) -> list[str]:
    """As sentences; of many the first and the last."""
    lines = [sentence(event) for event in events]
    if not lines:
        return [f"The replicas never change in {shown(end_s)}."]
    if len(lines) > DECISIONS_MAX:
        left_out = len(lines) - DECISIONS_MAX
        lines[DECISIONS_MAX - 5 : -5] = [f"... {left_out} more decisions: --json has them all"]
    return lines


def data(each: Simulated) -> dict[str, Any]:
    """For programs."""
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
    """All of it, for programs."""
    return json.dumps({"workloads": [data(each) for each in simulated]})


def _plot(outcome: Outcome) -> str:
    """Two charts with one axis of time: tasks that wait, and replicas."""
    times = [sample.at_s for sample in outcome.samples]
    waiting = [sample.waiting for sample in outcome.samples]
    desired, ready = ([getattr(sample, name) for sample in outcome.samples] for name in ("desired", "ready"))
    replicas = _chart("replicas asked for (#) and ready (o), up to the maximum", times, [(desired, "#"), (ready, "o")])
    return "\n".join([_chart("tasks that wait", times, [(waiting, "braille")]), replicas])


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
