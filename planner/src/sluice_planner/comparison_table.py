"""The same traffic on two overlays, side by side: for a terminal, or as Markdown for a pull request."""

from collections.abc import Sequence

from sluice_planner.fields import Wrong
from sluice_planner.summary import ROWS, Row
from sluice_planner.text_report import DECISIONS_MAX, Simulated, decisions, table

Pair = tuple[Simulated, Simulated]


def pairs(base: Sequence[Simulated], other: Sequence[Simulated]) -> list[Pair]:
    """Pair ScaledObjects by name; if each side has only one, they are a pair whatever their names."""
    if len(base) == len(other) == 1:
        return [(base[0], other[0])]
    by_name = {each.outcome.name: each for each in other}
    if {each.outcome.name for each in base} != set(by_name):
        names = [", ".join(sorted(each.outcome.name for each in side)) for side in (base, other)]
        raise Wrong(f"{other[0].workload.where}: the ScaledObjects must be the same, not {names[0]} and {names[1]}")
    return [(each, by_name[each.outcome.name]) for each in base]


def as_text(pair: Pair, names: tuple[str, str]) -> str:
    """A table for a terminal."""
    return "\n".join(table([(pair[0].outcome.name, *names, "change"), *_rows(pair)]))


def as_markdown(pair: Pair, names: tuple[str, str]) -> str:
    """A table, with the decisions in collapsed sections."""
    first, second = names
    lines = [f"### {pair[0].outcome.name}", "", f"| | {first} | {second} | change |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(pair)]
    for each, name in zip(pair, names, strict=True):
        said = decisions(each.outcome.events, each.outcome.end_s)[:DECISIONS_MAX]
        lines += ["", f"<details><summary>Decisions of {name}</summary>", "", "```", *said, "```", "</details>"]
    notes = dict.fromkeys(sentence for each in pair for sentence in each.assumed)
    return "\n".join([*lines, "", *(f"Assumed: {sentence}." for sentence in notes)])


def _rows(pair: Pair) -> list[tuple[str, str, str, str]]:
    return [(row.words, row.shown(pair[0].outcome), row.shown(pair[1].outcome), _change(row, pair)) for row in ROWS]


def _change(row: Row, pair: Pair) -> str:
    before, after = (row.get(each.outcome) for each in pair)
    if before is None or after is None or before == after:
        return ""
    return "" if before == 0 else f"{(after - before) / before:+.0%}"
