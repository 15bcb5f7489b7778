"""A result's table and sums, and the figures of the committed runs."""

import json
from dataclasses import replace
from pathlib import Path

from tests.chaos import report
from tests.chaos.checker import Checker
from tests.chaos.history import History
from tests.chaos.journal import Effect, Injected, Post, Try

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "docs/measurements/2026-11-25-chaos").glob("*.json"))


def _history() -> History:
    """Two APIs; the second one is slow to accept after a fault from 10 to 20 s."""
    return History(
        tries=[Try(str(at_s), None, api, at_s, at_s + 0.5, 202)
               for at_s, api in ((9.0, 1), (9.0, 2), (20.5, 1), (23.0, 2), (24.0, 1))],
        posts=[Post("12.0", "work", None, "unknown", None, 12.0, 14.0),
               Post("9.0", "work", None, "accepted", "9", 1.0, 2.0)],
        effects=[Effect("9.0", "9", "p", "done", "worker-1", 1, 0, 26.0)],
        faults=[Injected(1, "kill-broker", "all nodes", 10.0, 20.0)],
    )  # fmt: skip


def test_recovery_time_is_that_of_the_slowest_and_posts_count_for_the_fault_they_met() -> None:
    row = report.result(_history(), [])["by_fault"]["kill-broker"]
    assert (row["accepted_after_s"], row["finished_after_s"]) == ([3.5], [6.0])
    assert (row["faults"], row["sent"], row["unknown"]) == (1, 1, 1)


def test_table_counts_faults_without_recovery() -> None:
    history = _history()
    history.effects = [replace(effect, at_s=15.0) for effect in history.effects]
    outcome = report.result(history, [])
    assert outcome["by_fault"]["kill-broker"]["finished_after_s"] == [None]
    assert "| 3.5, 3.5 | 1 never |" in "\n".join(report.lines(report.together([outcome])))


def test_findings_count_for_the_fault_they_met() -> None:
    history = _history()
    history.posts.append(Post("x", "work", None, "accepted", "lost-id", 12.0, 13.0))
    outcome = report.result(history, Checker(history).findings())
    assert outcome["lost"] == 2  # no result was read, so the post before the fault is lost too
    assert outcome["by_fault"]["kill-broker"]["lost"] == 1


def test_together_sums_counts_and_joins_times() -> None:
    once = report.result(_history(), [])
    twice = report.together([once, once])
    assert (twice["sent"], twice["faults"], twice["kinds"]) == (4, 2, 1)
    assert twice["by_fault"]["kill-broker"]["accepted_after_s"] == [3.5, 3.5]


def test_documented_figures_match_committed_runs() -> None:
    outcomes = [json.loads(path.read_text()) for path in COMMITTED]
    assert outcomes
    page = ROOT / "docs/measurements/2026-11-25-chaos.md"
    assert "\n".join(report.lines(report.together(outcomes))) in page.read_text()
    assert not any(outcome["findings"] for outcome in outcomes)
