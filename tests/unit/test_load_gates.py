"""The gates of the load test, applied to made-up ledgers."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest import gates, shapes
from loadtest.gates import Gate, Seen, Verdict
from loadtest.ledger import Follower, Ledger, Writer
from loadtest.shapes import Shape
from tests.harness.simple_tasks import WORK_QUEUE

SHAPE = shapes.load("smoke", {"LONG_S": "1", "SHORT_S": "0.5"})
TASKS = 100
EMPTY = dict.fromkeys((WORK_QUEUE, "celery", "dead", "dead.parked"), 0)
SEEN = Seen({"load_long": TASKS}, EMPTY, TASKS)


def ledger(*more: tuple[Any, ...], late_s: float = 0.01, lost: Iterable[int] = (), accept_ms: float = 5) -> Ledger:
    """Build a ledger with one task per second, each of which ends after 1 s and `late_s`."""
    events: list[tuple[Any, ...]] = [(0, "second", 20, 1, 0), (TASKS + 20, "second", 20, 3 * TASKS, 0)]
    for number in range(TASKS):
        events.append((number, "accepted", f"id-{number}", "load_long", f"name {number}", accept_ms))
        if number not in lost:
            events.append((number + 1 + late_s, "finished", f"id-{number}", 1000 * late_s))
    events += [*more, (TASKS + 20, "end", {}, False)]
    found = Ledger()
    found.read(json.dumps(event) for event in events)
    return found


def verdict(run: Ledger, floor: Ledger | None = None, seen: Seen = SEEN, shape: Shape = SHAPE) -> Verdict:
    return gates.judged(shape, run, floor or ledger(), seen)


def failed(found: Verdict) -> list[str]:
    return [gate.name for gate in found.gates if not gate.held]


def test_good_run_is_held() -> None:
    found = verdict(ledger())
    assert (found.word, found.exit_status, failed(found)) == ("held", 0, [])
    assert len(found.gates) == 9


def test_lost_task_is_named() -> None:
    found = verdict(ledger(lost=[49]), seen=replace(SEEN, succeeded=TASKS - 1))
    assert failed(found) == ["nothing lost", "oldest waiting task"]
    assert found.exit_status == 1
    assert "1 without a result, the first id-49" in found.gates[0].found


@pytest.mark.parametrize(
    ("seen", "gate"),
    [
        (replace(SEEN, accepted={"load_long": TASKS + 1}), "ledger and /metrics agree"),
        (replace(SEEN, accepted={"load_short": TASKS}), "ledger and /metrics agree"),
        (replace(SEEN, accepted={}), "ledger and /metrics agree"),
        (replace(SEEN, succeeded=TASKS - 1), "ledger and /metrics agree"),
        (replace(SEEN, queues=EMPTY | {"celery": 1}), "queues drained"),
        (replace(SEEN, queues=EMPTY | {"dead.parked": 1}), "queues drained"),
        (replace(SEEN, queues={}), "queues drained"),
    ],
)
def test_counters_and_queues_of_the_system_must_agree_with_the_ledger(seen: Seen, gate: str) -> None:
    assert failed(verdict(ledger(), seen=seen)) == [gate]


def test_unknown_worker_counters_are_not_compared() -> None:
    assert failed(verdict(ledger(), seen=replace(SEEN, succeeded=None))) == []


@pytest.mark.parametrize(
    ("event", "gate"),
    [
        ((50, "wrong", "id-7", "another task's result"), "every result right"),
        ((50, "accepted", "id-7", "load_long", "the same id again", 5), "every result right"),
        ((TASKS + 20, "end", {"POST /tasks: 500": 1}, False), "no failures"),
    ],
)
def test_wrong_answer_fails_its_gate(event: tuple[Any, ...], gate: str) -> None:
    run = ledger()
    run.read([json.dumps(event)])
    assert gate in failed(verdict(run))


def test_run_without_tasks_or_requests_fails() -> None:
    run = Ledger()
    run.read([json.dumps((9, "end", {}, False))])
    assert {"nothing lost", "no failures", "every result right", "accepting, p95"} <= set(failed(verdict(run)))


def test_intended_refusals_are_reported_and_are_no_failures() -> None:
    (gate,) = (one for one in verdict(ledger((9, "refused", 503))).gates if one.name == "no failures")
    assert gate == Gate("no failures", held=True, found="0 of 300 requests, 1 intended refusals", wanted="0")


def test_growing_backlog_fails_two_gates() -> None:
    # each request is answered immediately, but results arrive at a tenth of the rate
    run = ledger(lost=[number for number in range(TASKS) if number % 10])
    assert {"results keep up", "oldest waiting task"} <= set(failed(verdict(run)))
    assert gates.kept_up(SHAPE, run, behind_s=2) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(("late_s", "held"), [(0.29, True), (0.31, False)])
def test_result_latency_is_compared_with_the_stub(late_s: float, held: bool) -> None:
    found = failed(verdict(ledger(late_s=late_s)))
    assert (found == []) is held
    assert held or found == ["result after its task's time, p95"]


@pytest.mark.parametrize(("accept_ms", "held"), [(149, True), (151, False)])
def test_accept_latency_is_compared_with_the_stub(accept_ms: float, held: bool) -> None:
    assert ("accepting, p95" not in failed(verdict(ledger(accept_ms=accept_ms)))) is held


def test_fast_stub_does_not_make_a_gate_stricter() -> None:
    quiet = ledger(accept_ms=0.5)
    found = verdict(ledger(accept_ms=149), quiet)
    assert "accepting, p95" not in failed(found)
    assert "29.8 times the stub's (149.0 and 0.5 ms, counted as 5)" in [gate.found for gate in found.gates]
    assert "accepting, p95" in failed(verdict(ledger(accept_ms=151), quiet))


def test_shape_without_limits_has_no_latency_gates() -> None:
    found = verdict(ledger(late_s=8), shape=SHAPE.model_copy(update={"limits": None}))
    assert (found.word, len(found.gates)) == ("held", 5)


@pytest.mark.parametrize(
    ("run", "floor", "why"),
    [
        (ledger((TASKS + 20, "end", {}, True)), ledger(), "too little CPU in the run"),
        (ledger(), ledger((TASKS + 20, "end", {}, True)), "too little CPU in the stub run"),
        (ledger(), Ledger(), "Locust ended before the stub run was over"),
        (ledger(), ledger(lost=[1]), "the stub run itself failed"),
    ],
)
def test_inconclusive_run_is_void(run: Ledger, floor: Ledger, why: str) -> None:
    if "too little" in why:  # the last event of `ledger` reset this
        (run if "in the run" in why else floor).short_of_cpu = True
    found = verdict(run, floor)
    assert why in " ".join(found.void)
    assert (found.word, found.exit_status) == ("void", 3)


def test_run_with_fewer_users_than_its_shape_is_void() -> None:
    crowd = SHAPE.model_copy(update={"stages": ((5, 21), (20, 21))})
    assert verdict(ledger(), shape=crowd).void == tuple(
        f"only 20 of the shape's 21 users were there in {name}" for name in ("the run", "the stub run")
    )


def test_incomplete_run_is_void() -> None:
    run, long = ledger(), SHAPE.model_copy(update={"stages": ((60, 20), (70, 20))})
    assert "the run was cut short: 120 of 130 s" in verdict(run, shape=long).void
    run.cut = True
    assert verdict(run).void == ("Locust did not end in time after the run, and was ended",)


@pytest.mark.parametrize(("late_s", "word"), [(-0.09, "held"), (-0.4, "void")])
def test_run_whose_tasks_are_shorter_than_the_shape_is_void(late_s: float, word: str) -> None:
    found = verdict(ledger(late_s=late_s))
    assert found.word == word
    assert word == "held" or found.void[0].startswith("load_long takes 400 ms less than its inputs say")


def test_percentile_is_the_nearest_rank() -> None:
    assert [gates.percentile(range(1, 101), share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]


def test_ledger_is_readable_while_it_is_written(tmp_path: Path) -> None:
    writer, follower = Writer(tmp_path / "ledger"), Follower(tmp_path / "ledger")
    assert follower.read().tasks == {}
    writer.add(1, "accepted", "id-1", "load_long", "ü\u2028\u2029", 5.0)
    writer.flush()
    assert [task.name for task in follower.read().open] == ["ü\u2028\u2029"]
    with (tmp_path / "ledger").open("a") as file:
        file.write('[2, "fini')
    assert len(follower.read().open) == 1
    with (tmp_path / "ledger").open("a") as file:
        file.write('shed", "id-1", 3.0]\n')
    assert [task.late_ms for task in follower.read().finished] == [3.0]
    writer.close()


def test_age_of_the_oldest_waiting_task_is_calculated_over_time() -> None:
    at_once = json.dumps((50, "accepted", "another", "load_long", "accepted in the same moment", 5))
    run = ledger(lost=[50])
    run.read([at_once])
    found = dict(run.oldest_waiting({"load_long": 1}))
    assert found[50] == 0
    assert found[60] == pytest.approx(9)
    assert found[TASKS + 20] == pytest.approx(69)
