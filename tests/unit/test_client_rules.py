"""The client's reactions to answers, as docs/api.md defines them, tested with made-up answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from apps.client import rules
from apps.client.rules import Call, OutcomeUnknown, Problem, QuotaExceeded, ReadLine, Reply, Rule, Sleep, Task, TimedOut

ROOT = Path(__file__).parents[2]
INPUT = {"task": "first", "name": "abc"}
LOST = Reply(0)
UNSENT = Reply(0, sent=False)


def problem(status: int, kind: str, after_s: int | None = 2, **members: Any) -> Reply:
    document = {"type": f"urn:sluice:problem:{kind}", "status": status, "detail": kind, **members}
    headers = {} if after_s is None else {"retry-after": str(after_s)}
    return Reply(status, headers, json.dumps(document).encode())


def answer(status: int, **document: Any) -> Reply:
    return Reply(status, {}, json.dumps(document).encode())


ACCEPTED = answer(202, task_id="t", task_status="PENDING")
REFUSED = problem(503, "refused")
UNKNOWN = problem(503, "outcome-unknown")
OPEN = problem(409, "request-open")
PARTLY = answer(202, outcomes=[{"status": 202, "task_id": "a"}, {"status": 503, "type": "urn:sluice:problem:refused"}])
WHOLE = answer(202, outcomes=[{"status": 202, "task_id": "a"}, {"status": 202, "task_id": "b"}])


def play(rule: Rule[Any], *replies: Reply) -> tuple[Any, list[Any]]:
    """Run a rule with these answers; returns its result and its steps."""
    steps: list[Any] = []
    waiting = iter(replies)
    reply: Any = None
    try:
        while True:
            steps.append(rule.send(reply))
            reply = next(waiting) if isinstance(steps[-1], Call) else None
    except StopIteration as stop:
        assert next(waiting, None) is None, "the rule did not use all answers"
        return stop.value, steps


@pytest.mark.parametrize(
    "first", [REFUSED, UNKNOWN, OPEN, LOST, UNSENT, Reply(429), Reply(500), Reply(502), Reply(504)]
)
def test_post_with_a_key_is_repeated_unchanged(first: Reply) -> None:
    task_id, steps = play(rules.submit(INPUT, "key", 30), first, ACCEPTED)
    calls = [step for step in steps if isinstance(step, Call)]
    assert task_id == "t"
    assert calls[0] == calls[1]
    assert calls[0].headers["Idempotency-Key"] == "key"


@pytest.mark.parametrize("first", [REFUSED, UNSENT, Reply(429)])
def test_post_without_a_key_is_repeated_only_if_nothing_was_accepted(first: Reply) -> None:
    assert play(rules.submit(INPUT, None, 30), first, ACCEPTED)[0] == "t"


@pytest.mark.parametrize("first", [UNKNOWN, LOST, Reply(500), Reply(502), Reply(504)])
def test_post_without_a_key_and_with_an_unknown_outcome_raises_outcome_unknown(first: Reply) -> None:
    with pytest.raises(OutcomeUnknown):
        play(rules.submit(INPUT, None, 30), first)


def test_outcome_unknown_contains_the_generated_key() -> None:
    with pytest.raises(OutcomeUnknown, match="Idempotency-Key generated") as caught:
        play(rules.submit(INPUT, "generated", 0), UNKNOWN)
    assert caught.value.key == "generated"


@pytest.mark.parametrize("status", [400, 401, 413, 415, 422])
@pytest.mark.parametrize("key", ["key", None])
def test_post_that_can_never_be_accepted_is_not_repeated(status: int, key: str | None) -> None:
    with pytest.raises(Problem) as caught:
        play(rules.submit(INPUT, key, 30), problem(status, "invalid", None))
    assert (caught.value.status, caught.value.kind) == (status, "invalid")


@pytest.mark.parametrize("last", [problem(401, "unauthenticated", None), REFUSED, problem(422, "invalid", None)])
def test_later_refusal_does_not_settle_an_unknown_outcome(last: Reply) -> None:
    with pytest.raises(OutcomeUnknown):
        play(rules.submit(INPUT, "key", 1.5), problem(503, "outcome-unknown", None), last)


def test_timeout_of_a_call_does_not_exceed_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.client.rules.time.monotonic", lambda: 0.0)
    for rule in (rules.submit(INPUT, "key", 3), rules.cancel("t", 3), rules.result("t", 3), rules.stream("t", 3)):
        call = rule.send(None)
        assert isinstance(call, Call)
        assert 3 <= call.timeout_s <= 3 + rules.SLACK_S


@pytest.mark.parametrize(("first", "raised"), [("refused", Problem), ("outcome-unknown", OutcomeUnknown)])
def test_deadline_distinguishes_refused_from_unknown(first: str, raised: type[Exception]) -> None:
    with pytest.raises(raised):  # the first pause is short, the second would exceed the deadline
        play(rules.submit(INPUT, "key", 1), problem(503, first, None), REFUSED)


def test_retry_after_is_obeyed_with_a_little_jitter() -> None:
    for _ in range(100):
        _, steps = play(rules.submit(INPUT, "key", 30), problem(503, "refused", 3), ACCEPTED)
        (pause,) = [step.seconds for step in steps if isinstance(step, Sleep)]
        assert 3 <= pause <= 3.75


def test_backoff_doubles_up_to_two_seconds() -> None:
    _, steps = play(rules.submit(INPUT, "key", 60), *[LOST] * 8, ACCEPTED)
    pauses = [step.seconds for step in steps if isinstance(step, Sleep)]
    for pause, most in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2], strict=True):
        assert most / 2 <= pause <= most


def test_batch_is_repeated_until_all_valid_inputs_are_accepted() -> None:
    invalid = {"status": 422, "type": "urn:sluice:problem:invalid", "detail": "no"}
    refused = {"status": 503, "type": "urn:sluice:problem:refused"}
    partly = answer(202, outcomes=[{"status": 202, "task_id": "a"}, invalid, refused])
    whole = answer(202, outcomes=[{"status": 202, "task_id": "a"}, invalid, {"status": 202, "task_id": "b"}])
    result, steps = play(rules.submit_batch([INPUT] * 3, "key", 30), REFUSED, partly, whole)
    assert [one if isinstance(one, str) else one.kind for one in result] == ["a", "invalid", "b"]
    assert len({step for step in map(repr, steps) if step.startswith("Call")}) == 1


def test_repeated_batch_obeys_retry_after() -> None:
    partly = Reply(202, {"retry-after": "3"}, PARTLY.body)
    _, steps = play(rules.submit_batch([INPUT] * 2, "key", 30), partly, WHOLE)
    (pause,) = [step.seconds for step in steps if isinstance(step, Sleep)]
    assert 3 <= pause <= 3.75


@pytest.mark.parametrize(
    ("later", "rest"), [(REFUSED, Problem), (UNKNOWN, OutcomeUnknown), (problem(401, "unauthenticated"), Problem)]
)
def test_accepted_inputs_of_a_batch_are_returned_if_the_rest_fails(later: Reply, rest: type[Exception]) -> None:
    accepted, other = play(rules.submit_batch([INPUT] * 2, "key", 1.5), PARTLY, later)[0]
    assert accepted == "a"
    assert isinstance(other, rest)


_UNKNOWN_B = answer(202, outcomes=[{"status": 202, "task_id": "a"}, json.loads(UNKNOWN.body)])
_PARTLY_AT_LAST = Reply(202, {"retry-after": "2"}, PARTLY.body)
_REFUSED_ALL = problem(503, "refused", outcomes=[json.loads(REFUSED.body)] * 2)


@pytest.mark.parametrize(
    "replies",
    [
        (_UNKNOWN_B, _PARTLY_AT_LAST),
        (_UNKNOWN_B, REFUSED),
        (_UNKNOWN_B, _REFUSED_ALL),
        (LOST, _PARTLY_AT_LAST),
        (problem(503, "outcome-unknown", None), _PARTLY_AT_LAST),
        (PARTLY, LOST, REFUSED),
    ],
)
def test_later_refusal_does_not_settle_an_unknown_input_of_a_batch(
    replies: tuple[Reply, ...],
) -> None:
    told = play(rules.submit_batch([INPUT] * 2, "key", 1.2), *replies)[0]
    assert told[0] == "a"
    assert isinstance(told[1], OutcomeUnknown)
    assert told[1].key == "key"


def test_refused_batch_returns_a_problem_per_input() -> None:
    told, _ = play(rules.submit_batch([INPUT] * 2, "key", 0), _REFUSED_ALL)
    assert [one.kind for one in told] == ["refused", "refused"]


def test_unknown_input_of_a_batch_is_returned_with_its_key() -> None:
    reply = answer(202, outcomes=[{"status": 202, "task_id": "a"}, json.loads(UNKNOWN.body)])
    accepted, other = play(rules.submit_batch([INPUT] * 2, "key", 0), reply)[0]
    assert accepted == "a"
    assert isinstance(other, OutcomeUnknown)
    assert other.key == "key"


def test_invalid_batch_returns_a_problem_per_input() -> None:
    reply = problem(422, "invalid", None, outcomes=[{"status": 422, "type": "urn:sluice:problem:invalid"}])
    (one,), _ = play(rules.submit_batch([INPUT], "key", 30), reply)
    assert isinstance(one, Problem)
    with pytest.raises(Problem):
        play(rules.submit_batch([], "key", 30), problem(422, "invalid", None))


@pytest.mark.parametrize(
    "first", [Reply(503), LOST, UNSENT, Reply(502), answer(200, task_id="t", task_status="STARTED")]
)
def test_result_is_polled_again_after_a_temporary_answer(first: Reply) -> None:
    done = answer(200, task_id="t", task_status="SUCCESS", task_result={"a": 1})
    task, _ = play(rules.result("t", 30), first, done)
    assert task == Task("t", "SUCCESS", {"a": 1})


@pytest.mark.parametrize(
    ("reply", "raised"), [(problem(404, "not-found"), Problem), (problem(410, "expired"), Problem)]
)
def test_result_of_an_unknown_or_expired_task_is_a_problem(reply: Reply, raised: type[Exception]) -> None:
    for rule in (rules.result("t", 30), rules.stream("t", 30)):
        with pytest.raises(raised):
            play(rule, reply)


def test_result_not_ready_at_the_deadline_raises_timed_out() -> None:
    with pytest.raises(TimedOut, match="is PENDING after 0"):
        play(rules.result("t", 0), answer(200, task_id="t", task_status="PENDING"))
    with pytest.raises(TimedOut):
        play(rules.result("t", 0), LOST)


def test_stream_resumes_after_a_lost_connection() -> None:
    rule = rules.stream("t", 30)
    call = rule.send(None)
    assert isinstance(call, Call)
    assert call.stream
    reply = Reply(200, lines=iter(()))
    assert isinstance(rule.send(reply), ReadLine)
    assert rule.send('data: {"task_id":"t","task_status":"STARTED"}') == Task("t", "STARTED")
    assert isinstance(rule.send(None), ReadLine)
    assert isinstance(rule.send(None), Sleep)  # the connection was lost
    again = rule.send(None)
    assert isinstance(again, Call)
    assert again.headers == {"Last-Event-ID": "STARTED"}
    assert isinstance(rule.send(reply), ReadLine)
    assert rule.send('data: {"task_id":"t","task_status":"SUCCESS","task_result":1}') == Task("t", "SUCCESS", 1)
    with pytest.raises(StopIteration):
        rule.send(None)


def test_timeout_of_a_stream_shrinks_towards_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("apps.client.rules.time.monotonic", lambda: now_s)
    rule = rules.stream("t", 50)
    call, reply = rule.send(None), Reply(200, lines=iter(()))
    assert isinstance(call, Call)
    assert call.timeout_s == rules.STREAM_TIMEOUT_S
    assert isinstance(rule.send(reply), ReadLine)
    now_s = 15
    assert isinstance(rule.send(": still here"), Sleep)  # a silence of 45 s would exceed the deadline
    call = rule.send(None)
    assert isinstance(call, Call)
    assert call.timeout_s == 35
    assert isinstance(rule.send(reply), ReadLine)
    assert isinstance(rule.send(": each state once"), ReadLine)  # this timeout ends at the deadline
    now_s = 50
    assert isinstance(rule.send(None), Sleep)
    with pytest.raises(TimedOut):
        rule.send(None)


@pytest.mark.parametrize("last", [LOST, UNSENT, Reply(503), Reply(504)])
def test_cancel_without_a_definite_answer_raises_outcome_unknown(last: Reply) -> None:
    with pytest.raises(OutcomeUnknown, match="cancel it again"):
        play(rules.cancel("t", 0), last)


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (answer(200, task_id="t", task_status="REVOKED"), "REVOKED"),
        (answer(202, task_id="t", task_status="STARTED"), "STARTED"),
        (problem(409, "already-ended", None, task_status="SUCCESS"), "SUCCESS"),
    ],
)
def test_cancel_returns_the_state(reply: Reply, state: str) -> None:
    assert play(rules.cancel("t", 30), LOST, reply)[0] == Task("t", state)


def test_every_kind_of_problem_is_documented() -> None:
    kinds = set(re.findall(r'Problem\(\d+, "([a-z-]+)"', (ROOT / "apps/api/errors.py").read_text()))
    text = (ROOT / "docs/api.md").read_text()
    served = {"not-ready", "internal"}  # not answers to calls of a client
    by_status = {"malformed": "400", "unauthenticated": "401", "not-found": "404", "expired": "410", "too-large": "413"}
    by_status |= {"method-not-allowed": "405", "not-json": "415", "results-unavailable": "503"}
    missing = {kind for kind in kinds - served if by_status.get(kind, f"`{kind}`") not in text}
    assert len(kinds) > 10
    assert missing == set()


QUOTA = {"tasks_per_s": 100, "open_tasks": 20_000, "exceeded": "open_tasks"}


def test_post_beyond_the_quota_waits_for_retry_after() -> None:
    task_id, steps = play(rules.submit(INPUT, "key", 30), problem(429, "quota-exceeded", 3, quota=QUOTA), ACCEPTED)
    (pause,) = [step for step in steps if isinstance(step, Sleep)]
    assert task_id == "t"
    assert 3 <= pause.seconds <= 3 * 1.25


@pytest.mark.parametrize("rule", [rules.submit(INPUT, "key", 1), rules.submit_batch([INPUT], "key", 1)])
def test_post_beyond_the_quota_at_the_deadline_raises_quota_exceeded(rule: Rule[Any]) -> None:
    with pytest.raises(QuotaExceeded) as raised:
        play(rule, problem(429, "quota-exceeded", 3, quota=QUOTA))
    assert raised.value.quota == QUOTA
    assert isinstance(raised.value, Problem)
