"""The checker finds each kind of broken promise, and nothing in a correct history."""

from dataclasses import replace

import pytest

from apps.contract import failures, states
from tests.chaos.checker import AWAY, Checker
from tests.chaos.endings import RAISED, RETURNED
from tests.chaos.history import Cut, History, Read, Stored
from tests.chaos.journal import Crashed, Effect, Flood, Injected, Post, Seen, Try
from tests.chaos.world import Life
from tests.harness.simple_tasks import WORK_QUEUE

ID, OTHER, NAME, RESULT = "id-1", "id-2", "1-1", {"name_task": "1-1", "state": "7-1"}
LIMIT = {"type": failures.DELIVERY_LIMIT, "message": "lost"}


@pytest.fixture
def history() -> History:
    """One post with a key that was accepted, ran once and succeeded."""
    return History(
        tries=[Try(NAME, "key", 80, 1.0, 1.1, 202, task_id=ID)],
        posts=[Post(NAME, "work", "key", "accepted", ID, 1.0, 1.1)],
        seen=[Seen(ID, "SUCCESS", RESULT, 3.0)],
        effects=[_effect("begun", 2.0), _effect("done", 2.5)],
        reads=[Read(ID, "SUCCESS", RESULT)],
        stored=[Stored(ID, "SUCCESS", 2.6)],
        lives=[Life(80, 0.0, 9.0, accepted=1, repeated=0, refused=0, whole=True)],
        depths_messages={WORK_QUEUE: 0, "celery_delayed_3": 0, "dead.parked": 0},
    )


def _effect(step: str, at_s: float, task_id: str = ID, pid: int = 7, worker: str = "worker-1") -> Effect:
    return Effect(NAME, task_id, "publish-1", step, worker, pid, 0, at_s)


def _kinds(history: History) -> list[str]:
    return sorted({finding.kind for finding in Checker(history).findings()})


def _ended(history: History, task: str, result: object, *, parked: bool = False) -> None:
    """Change the post to this kind of task, which ended as FAILURE."""
    history.posts = [replace(history.posts[0], task=task)]
    history.seen.clear()
    history.reads = [Read(ID, "FAILURE", result)]
    history.parked = [ID] if parked else []


def _done_again(history: History, at_s: float = 6.0) -> None:
    history.stored = [Stored(ID, "SUCCESS", at_s + 0.1)]
    history.effects += [_effect("begun", at_s - 0.5, pid=8, worker="worker-2"), _effect("done", at_s, pid=8)]


def test_correct_history_has_no_findings(history: History) -> None:
    assert _kinds(history) == []


@pytest.mark.parametrize(
    ("state", "found"),
    [("SUCCESS", []), ("REVOKED", []), ("STARTED", ["stuck"]), ("PENDING", ["lost"]), ("404", ["lost"])],
)
def test_task_of_an_attacker_must_end_too(history: History, state: str, found: list[str]) -> None:
    history.flood_reads = [Read("id-9", state)]
    assert _kinds(history) == found


def test_posts_of_an_attacker_count_in_the_metrics(history: History) -> None:
    history.lives = [replace(history.lives[0], accepted=11, refused=7)]
    assert _kinds(history) == ["counters"]
    history.floods = [Flood(80, 1.0, 1.5, 202, 10, 10), Flood(80, 1.0, 1.5, 503, 7, 0)]
    assert _kinds(history) == []


@pytest.mark.parametrize("state", ["PENDING", "404", "410", "503"])
def test_accepted_task_without_a_final_state_is_lost(history: History, state: str) -> None:
    history.seen.clear()
    history.reads = [Read(ID, state)]
    assert _kinds(history) == ["lost"]


def test_accepted_task_that_stays_started_is_stuck(history: History) -> None:
    history.seen.clear()
    history.reads = [Read(ID, "STARTED")]
    assert _kinds(history) == ["stuck"]


def test_accepted_task_that_was_never_read_is_lost(history: History) -> None:
    history.reads.clear()
    assert _kinds(history) == ["lost"]


def test_final_state_that_differs_from_the_clients_answer_is_found(history: History) -> None:
    history.seen = [Seen(ID, "SUCCESS", {"state": "another run's"}, 3.0)]
    assert _kinds(history) == ["two-states"]


def test_different_answers_of_two_apis_are_found(history: History) -> None:
    history.reads.append(Read(ID, "REVOKED"))
    assert _kinds(history) == ["two-states"]


def test_final_state_stored_twice_is_found(history: History) -> None:
    history.stored.append(Stored(ID, "SUCCESS", 4.0))
    assert _kinds(history) == ["ended-twice"]


def test_success_without_an_effect_is_found(history: History) -> None:
    history.effects.pop()
    assert _kinds(history) == ["no-effect"]


def test_effect_of_an_unknown_post_is_found(history: History) -> None:
    history.effects.append(replace(_effect("begun", 2.0, OTHER), name="9-9"))
    assert _kinds(history) == ["unasked"]


def test_run_of_a_refused_post_is_found(history: History) -> None:
    history.posts.append(Post("1-2", "work", None, "refused", None, 1.0, 1.1))
    history.effects.append(replace(_effect("begun", 2.0, OTHER), name="1-2"))
    assert _kinds(history) == ["refused-ran"]


def test_post_with_an_unknown_outcome_may_run_once(history: History) -> None:
    history.posts.append(Post("1-2", "work", None, "unknown", None, 1.0, 1.1))
    history.effects.append(replace(_effect("done", 2.0, OTHER), name="1-2"))
    assert _kinds(history) == []


def test_key_answered_with_two_ids_is_found(history: History) -> None:
    history.tries.append(Try(NAME, "key", 80, 1.2, 1.3, 202, task_id=OTHER))
    history.reads.append(Read(OTHER, "SUCCESS", RESULT))
    history.lives = [replace(history.lives[0], accepted=2)]
    assert _kinds(history) == ["two-ids"]


def test_key_that_ran_under_two_ids_is_found(history: History) -> None:
    history.effects.append(_effect("done", 3.0, OTHER))
    assert _kinds(history) == ["two-ids"]


def test_unexplained_duplicate_is_found(history: History) -> None:
    _done_again(history)
    assert _kinds(history) == ["duplicate"]


def test_kill_of_the_process_explains_a_duplicate(history: History) -> None:
    _done_again(history)
    history.faults = [Injected(1, "kill-child", "worker-1", 2.55, 2.55, (7,))]
    assert _kinds(history) == []
    assert len(list(Checker(history).duplicates(explained=True))) == 1


def test_kill_before_the_run_explains_no_duplicate(history: History) -> None:
    _done_again(history)
    history.faults = [Injected(1, "kill-child", "worker-1", 1.9, 1.9, (7,))]
    assert _kinds(history) == ["duplicate"]


def test_kill_after_the_second_run_explains_no_duplicate(history: History) -> None:
    _done_again(history)
    history.faults = [Injected(1, "kill-child", "worker-1", 5.6, 5.6, (7,))]
    assert _kinds(history) == ["duplicate"]


@pytest.mark.parametrize(
    ("kind", "target", "found"),
    [
        *((kind, "whatever", []) for kind in sorted(AWAY | {"silence-workers"})),
        ("pause-worker", "worker-1", []),
        ("pause-worker", "worker-2", ["duplicate"]),  # the second run's worker was paused
        ("reset-workers", "workers, recorder", ["duplicate"]),  # a reset is always logged by the worker
        ("kill-api", "api-0", ["duplicate"]),
    ],
)
def test_separated_worker_explains_a_duplicate(history: History, kind: str, target: str, found: list[str]) -> None:
    _done_again(history)
    history.faults = [Injected(1, kind, target, 2.2, 4.0)]
    assert _kinds(history) == found


@pytest.mark.parametrize(("injected_s", "healed_s"), [(-20.0, -10.0), (5.6, 7.0)])
@pytest.mark.parametrize("kind", ["pause-worker", "cut-node"])
def test_separation_long_before_or_after_explains_no_duplicate(
    history: History, kind: str, injected_s: float, healed_s: float
) -> None:
    _done_again(history)
    history.faults = [Injected(1, kind, "worker-1", injected_s, healed_s)]
    assert _kinds(history) == ["duplicate"]


def test_lost_connection_long_after_the_second_run_explains_no_duplicate(history: History) -> None:
    _done_again(history)
    history.cuts = [Cut("worker-1", 20.0)]
    assert _kinds(history) == ["duplicate"]


def test_lost_connection_of_the_worker_explains_a_duplicate(history: History) -> None:
    _done_again(history)
    history.cuts = [Cut("worker-1", 3.0)]
    assert _kinds(history) == []


def test_lost_connection_just_before_the_run_explains_a_duplicate(history: History) -> None:
    _done_again(history)  # the first run began at 2.0
    history.cuts = [Cut("worker-1", 1.9)]
    assert _kinds(history) == []


def test_lost_connection_well_before_the_run_explains_no_duplicate(history: History) -> None:
    _done_again(history)
    history.cuts = [Cut("worker-1", 0.5)]
    assert _kinds(history) == ["duplicate"]


def test_lost_connection_of_another_worker_explains_no_duplicate(history: History) -> None:
    _done_again(history)
    history.cuts = [Cut("worker-2", 3.0)]
    assert _kinds(history) == ["duplicate"]


def test_duplicate_after_the_end_was_stored_is_never_explained(history: History) -> None:
    _done_again(history)
    history.stored = [Stored(ID, "SUCCESS", 2.6)]
    history.cuts = [Cut("worker-1", 3.0)]
    assert _kinds(history) == ["duplicate"]


def test_duplicate_of_another_publish_is_never_explained(history: History) -> None:
    _done_again(history)
    history.effects[2:] = [replace(effect, publish_id="publish-2") for effect in history.effects[2:]]
    history.cuts = [Cut("worker-1", 3.0)]
    assert _kinds(history) == ["duplicate", "two-publishes"]


def test_unfinished_run_of_a_second_publish_is_found(history: History) -> None:
    history.effects.append(replace(_effect("begun", 2.1, pid=8), publish_id="publish-2"))
    assert _kinds(history) == ["two-publishes"]


def test_correct_task_that_ended_by_the_delivery_limit_is_found(history: History) -> None:
    _ended(history, "work", LIMIT, parked=True)
    assert _kinds(history) == ["condemned"]


def test_poison_task_may_end_by_the_delivery_limit(history: History) -> None:
    _ended(history, "poison", LIMIT, parked=True)
    assert _kinds(history) == []


def test_dead_letter_that_is_not_parked_is_found(history: History) -> None:
    _ended(history, "poison", LIMIT)
    assert _kinds(history) == ["parked"]


def test_parked_task_that_succeeded_is_found(history: History) -> None:
    history.parked = [ID]
    assert _kinds(history) == ["parked"]


def test_failed_work_is_found(history: History) -> None:
    _ended(history, "work", {"type": "OperationalError", "message": ""})
    assert _kinds(history) == ["wrong-end"]


@pytest.mark.parametrize(("message", "found"), [(NAME, []), ("another task's", ["wrong-end"])])
def test_failing_task_must_have_its_own_message(history: History, message: str, found: list[str]) -> None:
    _ended(history, "fail", {"type": "ValueError", "message": message})
    assert _kinds(history) == found


@pytest.mark.parametrize(
    ("type_", "kind", "healed_s", "found"),
    [
        (failures.RETRY_REFUSED, "unbind", 4.0, []),
        (failures.REJECTED, "reset-workers", 4.0, []),
        (failures.EXPIRED, "unbind", 4.0, ["wrong-end"]),
        (failures.RETRY_REFUSED, "unbind", -20.0, ["wrong-end"]),
        (failures.RETRY_REFUSED, "kill-redis", 4.0, ["wrong-end"]),
    ],
)
def test_refused_retry_needs_a_fault_of_the_broker(
    history: History, type_: str, kind: str, healed_s: float, found: list[str]
) -> None:
    _ended(history, "flaky", {"type": type_, "message": ""}, parked=True)
    history.faults = [Injected(1, kind, "", healed_s - 2.5, healed_s)]
    assert _kinds(history) == found


def _raised(task: str) -> dict[str, str]:
    error = RAISED[task](NAME)
    return states.failure(type(error).__name__, str(error))


@pytest.mark.parametrize("task", RAISED)
def test_raising_task_may_fail_with_its_own_error(history: History, task: str) -> None:
    _ended(history, task, _raised(task))
    assert _kinds(history) == []


@pytest.mark.parametrize("task", RAISED)
@pytest.mark.parametrize(
    "changed",
    [{"type": failures.REJECTED}, {"type": "WorkerLostError"}, {"message": "another task's"}, {"message": ""}],
)
def test_raising_task_must_not_fail_with_another_error(history: History, task: str, changed: dict[str, str]) -> None:
    _ended(history, task, _raised(task) | changed)
    assert "wrong-end" in _kinds(history)


@pytest.mark.parametrize("message", ["caf\udce9", "x" * 5000])
def test_message_that_is_not_escaped_or_truncated_is_found(history: History, message: str) -> None:
    for task in ("unreadable", "endless"):
        _ended(history, task, {"type": "ValueError", "message": NAME + message})
        assert _kinds(history) == ["wrong-end"]


@pytest.mark.parametrize("task", [*RAISED, "too_large"])
def test_success_of_a_failing_task_is_found(history: History, task: str) -> None:
    history.posts = [replace(history.posts[0], task=task)]
    assert _kinds(history) == ["wrong-end"]


@pytest.mark.parametrize("task", [*RAISED, "too_large"])
def test_unexplained_duplicate_of_a_failing_task_is_found(history: History, task: str) -> None:
    type_, message = ("ResultTooLarge", "2097152 bytes, and 1048576") if task == "too_large" else _raised(task).values()
    _ended(history, task, {"type": type_, "message": message})
    assert _kinds(history) == []
    _done_again(history)
    assert _kinds(history) == ["duplicate"]


@pytest.mark.parametrize("message", ["2097152 bytes", ""])
def test_too_large_result_must_name_the_limit(history: History, message: str) -> None:
    _ended(history, "too_large", {"type": "ResultTooLarge", "message": message})
    assert _kinds(history) == ["wrong-end"]


@pytest.mark.parametrize("task", RETURNED)
@pytest.mark.parametrize("end", ["", "x", None])
def test_incomplete_large_result_is_found(history: History, task: str, end: str | None) -> None:
    data = RETURNED[task](NAME).replace("\udce9", r"\udce9")
    result = RESULT | {"data": data[:-1] if end is None else data + end}
    history.posts = [replace(history.posts[0], task=task)]
    history.seen, history.reads = [], [Read(ID, "SUCCESS", result)]
    assert _kinds(history) == ([] if end == "" else ["wrong-end"])


@pytest.mark.parametrize("result", [None, RESULT | {"name_task": "1-2"}, RESULT | {"state": "8-1"}])
def test_result_of_another_task_or_of_no_run_is_found(history: History, result: object) -> None:
    history.seen.clear()
    history.reads = [Read(ID, "SUCCESS", result)]
    assert _kinds(history) == ["wrong-end"]


@pytest.mark.parametrize(("state", "found"), [("SUCCESS", []), ("PENDING", ["lost"]), ("STARTED", ["stuck"])])
def test_accepted_id_that_no_client_noted_must_end_too(history: History, state: str, found: list[str]) -> None:
    history.posts = [replace(history.posts[0], outcome="unknown", task_id=None)]
    history.seen.clear()
    history.reads = [Read(ID, state, RESULT if state == "SUCCESS" else None)]
    assert _kinds(history) == found


@pytest.mark.parametrize("messages", [1, None])
@pytest.mark.parametrize("queue", [WORK_QUEUE, "dead", "celery_delayed_3"])
def test_message_left_in_a_queue_is_found(history: History, queue: str, messages: int | None) -> None:
    history.depths_messages[queue] = messages
    assert _kinds(history) == ["left-over"]


def test_parked_messages_may_stay(history: History) -> None:
    history.depths_messages["dead.parked"] = 1
    assert _kinds(history) == []


@pytest.mark.parametrize(
    ("type_", "found"),
    [(failures.HARD_TIME_LIMIT, []), ("SoftTimeLimitExceeded", ["wrong-end"]), (failures.REJECTED, ["wrong-end"])],
)
def test_endless_task_must_end_by_its_hard_limit(history: History, type_: str, found: list[str]) -> None:
    _ended(history, "swallow", {"type": type_, "message": ""}, parked=type_ in failures.TYPES)
    history.effects = [_effect("begun", 2.0)]
    assert _kinds(history) == found


@pytest.mark.parametrize(("fault", "found"), [("kill-child", ["left-running"]), ("kill-worker", [])])
def test_process_that_outlives_its_task_is_found(history: History, fault: str, found: list[str]) -> None:
    """Unless the worker itself was killed: then no process remains to end the task's process."""
    history.effects.append(_effect("started 99", 2.1))
    assert _kinds(history) == []
    history.running = [99]
    history.faults = [Injected(1, fault, "worker-1", 2.2, 2.3, (7,))]
    assert _kinds(history) == found


def test_process_that_ended_by_itself_is_found(history: History) -> None:
    history.crashes = [Crashed("worker-1", "Unrecoverable error", 3.0)]
    assert _kinds(history) == ["crashed"]


@pytest.mark.parametrize("accepted", [0, 2])
def test_counters_that_contradict_the_answers_are_found(history: History, accepted: int) -> None:
    history.lives = [replace(history.lives[0], accepted=accepted)]
    assert _kinds(history) == ["counters"]


def test_counters_of_a_killed_process_may_be_too_low(history: History) -> None:
    history.lives.append(replace(history.lives[0], accepted=0, whole=False))
    assert _kinds(history) == []


def test_counters_that_could_not_be_read_are_found(history: History) -> None:
    history.lives = [replace(history.lives[0], whole=False)]
    assert _kinds(history) == ["counters"]


def test_answer_of_the_previous_process_need_not_be_counted(history: History) -> None:
    history.lives = [replace(history.lives[0], started_s=1.05, accepted=0)]
    assert _kinds(history) == []


def test_request_without_an_answer_may_be_counted(history: History) -> None:
    history.tries = [replace(history.tries[0], status=0, task_id=None)]
    assert _kinds(history) == []
