"""The table of `make abuse` tells for each attack whether its bounds were kept."""

from dataclasses import replace

import pytest

from tests.chaos import bounds
from tests.chaos.bounds import Bound
from tests.chaos.history import History
from tests.chaos.journal import Effect, Injected, Post, Seen, Try
from tests.chaos.scenarios import ABUSE, SCENARIOS

BOUND = Bound(answer_p95_s=1, answer_max_s=2, result_p95_s=3, result_max_s=4, refusals=frozenset({"allowed"}))


@pytest.fixture
def history() -> History:
    """Twenty posts during an attack, each answered after 0.1 s, with a task of 1 s and a result 0.5 s late."""
    run = History(faults=[Injected(1, "attack", "APIs", 10.0, 20.0)])
    for number in range(20):
        sent_s, task_id = 10.0 + number / 4, f"id-{number}"
        known_s = sent_s + 0.1
        run.tries.append(Try(task_id, None, 80, sent_s, known_s, 202, task_id=task_id))
        run.posts.append(Post(task_id, "work", None, "accepted", task_id, sent_s, known_s))
        run.effects += [
            Effect(task_id, task_id, "p", step, "worker", 7, 0, at_s)
            for step, at_s in (("begun", known_s + 0.2), ("done", known_s + 1.2))
        ]
        run.seen.append(Seen(task_id, "SUCCESS", None, known_s + 1.5))
    return run


def row(history: History) -> bounds.Row:
    (found,) = bounds.rows(history, {"attack": BOUND})
    return found


def test_kept_bound_is_reported_as_kept(history: History) -> None:
    found = row(history)
    assert (found.posts, found.results, found.broken) == (20, 20, [])
    assert found.answer_s == pytest.approx((0.1, 0.1))
    assert found.result_s == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("slow", "seconds", "broken"),
    [(1, 1.5, []), (2, 1.5, ["answers p95"]), (1, 2.5, ["answers max"])],
)
def test_late_answers_break_the_bound(history: History, slow: int, seconds: float, broken: list[str]) -> None:
    history.tries[:slow] = [replace(each, answered_s=each.sent_s + seconds) for each in history.tries[:slow]]
    assert row(history).broken == broken


@pytest.mark.parametrize(
    ("slow", "seconds", "broken"),
    [(1, 3.5, []), (2, 3.5, ["results p95"]), (1, 9.0, ["results max"])],
)
def test_late_results_break_the_bound(history: History, slow: int, seconds: float, broken: list[str]) -> None:
    history.seen[:slow] = [replace(each, at_s=each.at_s + seconds - 0.5) for each in history.seen[:slow]]
    assert row(history).broken == broken


@pytest.mark.parametrize(
    ("status", "kind", "broken"),
    [(503, "allowed", []), (503, "refused", ["1 refused: refused"]), (0, "", ["1 refused: status 0"])],
)
def test_refusals_of_other_kinds_break_the_bound(history: History, status: int, kind: str, broken: list[str]) -> None:
    history.tries[3] = replace(history.tries[3], status=status, kind=kind, task_id=None)
    assert row(history).broken == broken


def test_attack_without_posts_breaks_the_bound(history: History) -> None:
    history.tries.clear()
    assert row(history).broken == ["no posts"]


def test_posts_before_or_after_an_attack_do_not_count(history: History) -> None:
    history.tries.append(Try("x", None, 80, 9.9, 30.0, 503, "refused"))
    history.tries.append(Try("x", None, 80, 20.1, 30.0, 503, "refused"))
    assert row(history).broken == []


def test_table_shows_the_bound_and_the_verdict(history: History) -> None:
    kept = row(history)
    history.tries[0] = replace(history.tries[0], answered_s=100.0)
    table = list(bounds.lines([kept, row(history)]))
    assert table[2] == "| attack | 20 | 0.10, 0.10 (1, 2) | 0.50, 0.50 (3, 4) | 0 | kept |"
    assert table[3].endswith("| **broken**: answers max |")


@pytest.mark.parametrize("name", ["abuse", "abuse-quick"])
def test_every_attack_has_a_bound(name: str) -> None:
    assert [step.faults[0].kind for step in SCENARIOS[name].steps(1)] == list(ABUSE)
