"""Draws outcomes, a column each, the queue above the replicas: as PNG, SVG or PDF, and inside an HTML page."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sluice_planner.curve import Curve
from sluice_planner.durations import DAY_S, HOUR_S, MINUTE_S
from sluice_planner.fields import Wrong
from sluice_planner.prediction import Replayed
from sluice_planner.simulation import Outcome
from sluice_planner.summary import ROWS
from sluice_planner.text_report import Simulated, assumptions, sentence

_UNITS = ((2 * DAY_S, DAY_S, "days"), (2 * HOUR_S, HOUR_S, "hours"), (2 * MINUTE_S, MINUTE_S, "minutes"), (0, 1, "s"))
# reproducible files: no date, no random ids
mpl.rcParams["svg.hashsalt"] = "sluice"
_NO_DATE = {"Date": None}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .15em 1em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto } ol { font-family: monospace }
"""


def figure(outcomes: Sequence[Outcome], titles: Sequence[str]) -> Figure:
    """Outcomes side by side, on the same scales."""
    made = Figure(figsize=(6 * len(outcomes) + 1, 5.5), layout="constrained")
    FigureCanvasAgg(made)
    grid = made.subplots(2, len(outcomes), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 2))
    for column, (outcome, title) in enumerate(zip(outcomes, titles, strict=True)):
        unit_s, unit = next((size, name) for least, size, name in _UNITS if outcome.end_s >= least)
        _queue(grid[0][column], outcome, unit_s, title)
        _replicas(grid[1][column], outcome, unit_s)
        grid[1][column].set_xlabel(unit)
    grid[0][0].set_ylabel("waiting tasks")
    grid[1][0].set_ylabel("replicas")
    _from_zero(made)
    return made


def _from_zero(made: Figure) -> None:
    """Start the y axes at 0. Call it last: setting one limit turns autoscaling of the other off."""
    for axes in made.axes:
        axes.autoscale(axis="y")
        axes.set_ylim(bottom=0)


def _queue(axes: Axes, outcome: Outcome, unit_s: float, title: str) -> None:
    times = [sample.at_s / unit_s for sample in outcome.samples]
    axes.fill_between(times, [sample.waiting for sample in outcome.samples], color="tab:blue", alpha=0.3)
    axes.plot(times, [sample.waiting for sample in outcome.samples], color="tab:blue")
    axes.set_title(title)


def _replicas(axes: Axes, outcome: Outcome, unit_s: float) -> None:
    times = [sample.at_s / unit_s for sample in outcome.samples]
    axes.step(times, [sample.ready for sample in outcome.samples], where="post", color="tab:green", label="ready")
    desired = [sample.desired for sample in outcome.samples]
    axes.step(times, desired, where="post", color="black", linestyle=":", label="desired")
    for bound in (outcome.minimum, outcome.maximum):
        axes.axhline(bound, color="tab:red", linewidth=0.8, linestyle="--")
    axes.legend(loc="center right")


def replayed(curve: Curve, made: Replayed) -> Figure:
    """A recording and its prediction."""
    drawn = figure([made.outcome], ["measured (dashed) and predicted"])
    queue, replicas = drawn.axes
    unit_s = next(size for least, size, _ in _UNITS if made.outcome.end_s >= least)
    times = [(point.at_s + made.shift_s) / unit_s for point in curve.points]
    queue.plot(times, [point.depth for point in curve.points], color="tab:orange", linestyle="--")
    ready = [point.ready for point in curve.points]
    replicas.step(times, ready, where="post", color="tab:orange", linestyle="--")
    _from_zero(drawn)
    return drawn


def write(path: Path, made: Figure) -> None:
    """Write the figure in the format of the file's suffix. Raises Wrong if it cannot be written."""
    try:
        made.savefig(path, dpi=110, metadata=_NO_DATE if path.suffix == ".svg" else None)
    except OSError as exc:
        raise Wrong(f"{path}: cannot be written ({exc.strerror})") from None
    except ValueError:
        raise Wrong(f"{path}: must end in .png, .svg or .pdf") from None


def page(simulated: Sequence[Simulated]) -> str:
    """A self-contained HTML page: picture, numbers, decisions."""
    outcomes = [each.outcome for each in simulated]
    svg = io.StringIO()
    figure(outcomes, [outcome.name for outcome in outcomes]).savefig(svg, format="svg", metadata=_NO_DATE)
    picture = svg.getvalue()[svg.getvalue().index("<svg") :]
    head = "".join(f"<th>{escape(outcome.name)}</th>" for outcome in outcomes)
    rows = "".join(
        f"<tr><td>{row.words}</td>{''.join(f'<td>{row.shown(outcome)}</td>' for outcome in outcomes)}</tr>"
        for row in ROWS
    )
    notes = "".join(f"<p>{escape(line)}</p>" for each in simulated for line in assumptions(each))
    lists = "".join(_decisions(outcome) for outcome in outcomes)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>sluice</title><style>{_STYLE}</style>'
        f"<h1>Predicted autoscaling</h1><p>Simulated {when}.</p>{notes}{picture}"
        f"<table><tr><th></th>{head}</tr>{rows}</table>{lists}</html>"
    )


def _decisions(outcome: Outcome) -> str:
    lines = "".join(f"<li>{escape(sentence(event))}</li>" for event in outcome.events)
    return f"<h2>Decisions of {escape(outcome.name)}</h2><ol>{lines}</ol>"
