"""The effects of attacks on other clients, compared with bounds: the table of `make abuse`.

Measured for posts during an attack: the time to any answer, the refusals, and for followed tasks the time from the
answer until the client knows the result, minus the duration of the task itself.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.chaos.history import History
from tests.chaos.journal import Injected

ACCEPTED = 202
SHARE = 0.95


@dataclass(frozen=True)
class Bound:
    """Bounds in seconds; `refusals` are the kinds of problems with which a post may be refused."""

    answer_p95_s: float
    answer_max_s: float
    result_p95_s: float
    result_max_s: float
    refusals: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """The measurements for one attack."""

    attack: str
    bound: Bound
    posts: int
    results: int
    answer_s: tuple[float, float]
    """95th percentile and maximum."""
    result_s: tuple[float, float]
    refused: Mapping[str, int]

    @property
    def broken(self) -> list[str]:
        """Return the exceeded bounds in words."""
        bound = self.bound
        words = ("answers p95", "answers max", "results p95", "results max")
        limits = (bound.answer_p95_s, bound.answer_max_s, bound.result_p95_s, bound.result_max_s)
        found = [
            word for word, limit, s in zip(words, limits, (*self.answer_s, *self.result_s), strict=True) if s > limit
        ]
        found += [f"{count} refused: {kind}" for kind, count in self.refused.items() if kind not in bound.refusals]
        return found if self.posts else [*found, "no posts"]


def rows(history: History, bounds: Mapping[str, Bound]) -> list[Row]:
    """Return a row per attack, in their order."""
    return [_row(history, fault, bounds[fault.kind]) for fault in sorted(history.faults, key=lambda each: each.number)]


def _row(history: History, fault: Injected, bound: Bound) -> Row:
    tries = [each for each in history.tries if fault.injected_s <= each.sent_s <= fault.healed_s]
    refused: dict[str, int] = {}
    for each in tries:
        if each.status != ACCEPTED:
            kind = each.kind or f"status {each.status}"
            refused[kind] = refused.get(kind, 0) + 1
    sent_s = {post.task_id: post for post in history.posts if post.task_id and post.task == "work"}
    done_s = {effect.task_id: effect.at_s for effect in history.effects if effect.step == "done"}
    begun_s = {effect.task_id: effect.at_s for effect in history.effects if effect.step == "begun"}
    results = [
        seen.at_s - sent_s[seen.task_id].known_s - (done_s.get(seen.task_id, 0) - begun_s.get(seen.task_id, 0))
        for seen in history.seen
        if seen.task_id in sent_s and fault.injected_s <= sent_s[seen.task_id].known_s <= fault.healed_s
    ]
    answers = [each.answered_s - each.sent_s for each in tries]
    return Row(fault.kind, bound, len(tries), len(results), _spread(answers), _spread(results), refused)


def _spread(seconds: list[float]) -> tuple[float, float]:
    """Return the 95th percentile and the maximum."""
    if not seconds:
        return 0.0, 0.0
    ordered = sorted(seconds)
    return ordered[math.ceil(SHARE * len(ordered)) - 1], ordered[-1]


def lines(found: list[Row]) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| attack | posts | answers p95, max (bound), s | results p95, max (bound), s | refused | verdict |"
    yield "|---|---|---|---|---|---|"
    for row in found:
        bound = row.bound
        answers = f"{_pair(row.answer_s)} ({bound.answer_p95_s:g}, {bound.answer_max_s:g})"
        results = f"{_pair(row.result_s)} ({bound.result_p95_s:g}, {bound.result_max_s:g})"
        refused = ", ".join(f"{count} {kind}" for kind, count in row.refused.items()) or "0"
        verdict = "**broken**: " + "; ".join(row.broken) if row.broken else "kept"
        yield f"| {row.attack} | {row.posts} | {answers} | {results} | {refused} | {verdict} |"


def _pair(seconds: tuple[float, float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)
