"""Rules of a client for each answer (docs/api.md), as generators without I/O.

A rule yields steps, receives the reply of each, and returns the result of the call. `apps.client.client` runs the
steps, blocking or with asyncio.
"""

import json
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from apps.contract.states import FINAL

T = TypeVar("T")

# Time-out of an answer; the API answers posts within its own deadline of a few seconds.
CALL_TIMEOUT_S = 15.0
WAIT_S = 20.0
# Three times the interval of an event stream's comments: a stream that is silent for longer is dead.
STREAM_TIMEOUT_S = 45.0
# Deadlines may be exceeded by this.
SLACK_S = 1.0
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0
# Answers of a proxy, or of a failing API: the outcome of the request is unknown.
AMBIGUOUS = frozenset({500, 502, 504})


@dataclass(frozen=True)
class Call:
    """Send a request. With `stream`, the body is read line by line."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_s: float = CALL_TIMEOUT_S
    stream: bool = False


@dataclass(frozen=True)
class Sleep:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True)
class ReadLine:
    """Read the next line of a reply; None at its end, or if the connection is lost."""

    reply: "Reply"


@dataclass(frozen=True)
class Reply:
    """An answer. Status 0 means none; `sent` is then whether the request may have arrived."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: bool = True
    lines: Any = None

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object in the body, or an empty one: proxies answer with HTML."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class Task:
    """A task's status from the API."""

    id: str
    status: str
    result: Any = None

    @property
    def final(self) -> bool:
        return self.status in FINAL


class Problem(Exception):
    """A definite error: the request had no effect. `kind` is the last part of its type, such as `not-found`."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self.document = document
        self.kind = str(document.get("type", "")).rpartition(":")[2]
        super().__init__(str(document.get("detail") or f"answered by {status}" if status else "no answer"))


class QuotaExceeded(Problem):
    """The client's quota was used up until the deadline, and nothing was accepted. `quota` has the limits."""

    @property
    def quota(self) -> dict[str, Any]:
        """The limits `tasks_per_s` and `open_tasks`; `exceeded` names one of them."""
        quota = self.document.get("quota")
        return quota if isinstance(quota, dict) else {}


def _problem(reply: Reply) -> Problem:
    kind = str(reply.document.get("type", "")).rpartition(":")[2]
    return (QuotaExceeded if kind == "quota-exceeded" else Problem)(reply.status, reply.document)


class OutcomeUnknown(Exception):
    """The request may have had an effect. Repeat the call to find out; a post with the same `key`, if it had one."""

    def __init__(self, detail: str, key: str | None = None) -> None:
        self.key = key
        super().__init__(f"{detail} (Idempotency-Key {key})" if key else detail)


class TimedOut(Exception):
    """The task has not ended in time, and continues."""


# Outcome of an input of a batch: its id, or the reason why it has none or an unknown one.
Outcome = str | Problem | OutcomeUnknown
Step = Call | Sleep | ReadLine
Rule = Generator[Step | Task, Any, T]


def submit(inputs: Mapping[str, Any] | str, key: str | None, deadline_s: float) -> Rule[str]:
    """Post a task; returns its id. Raises Problem and OutcomeUnknown."""
    reply, _ = yield from _post(
        "/tasks", inputs if isinstance(inputs, str) else dict(inputs), key, time.monotonic() + deadline_s
    )
    return str(reply.document["task_id"])


def submit_batch(inputs: Sequence[Mapping[str, Any]], key: str, deadline_s: float) -> Rule[list[Outcome]]:
    """Post a batch, and retry while more inputs can be accepted; returns the outcome of each input, in order.

    Raises Problem or OutcomeUnknown if no answer had outcomes of the inputs.
    """
    end_s = time.monotonic() + deadline_s
    body = {"tasks": [dict(one) for one in inputs]}
    pauses = _pauses()
    told: list[Outcome] = []
    while True:
        try:
            reply, unknown = yield from _post("/tasks/batch", body, key, end_s)
        except (Problem, OutcomeUnknown) as exc:
            if not told:
                raise
            return [_together(one, exc) for one in told]
        now = [_outcome(one, key) for one in reply.document["outcomes"]]
        # a later refusal does not settle an unknown outcome of an earlier or missing answer
        before: Sequence[Outcome | None] = told or [None] * len(now)
        before = [_together(one, unknown) for one in before] if unknown else before
        told = [_together(*pair) for pair in zip(before, now, strict=True)]
        pause_s = _pause_s(reply, pauses)
        if all(isinstance(one, str) or _settled(one) for one in told) or time.monotonic() + pause_s > end_s:
            return told
        yield Sleep(pause_s)


def result(task_id: str, timeout_s: float) -> Rule[Task]:
    """Wait for the end of a task. Raises Problem and TimedOut."""
    end_s = time.monotonic() + timeout_s
    while True:
        wait_s = min(WAIT_S, max(0.0, end_s - time.monotonic()))
        call = Call("GET", f"/tasks/{task_id}?wait={wait_s:.3f}", timeout_s=wait_s + CALL_TIMEOUT_S)
        reply = yield from _ask(call, end_s)
        if reply.status != 200:
            raise _unanswered(reply, TimedOut(f"{task_id} has not ended within {timeout_s} s"))
        task = _task(reply.document)
        if task.final:
            return task
        if time.monotonic() >= end_s:
            raise TimedOut(f"{task_id} is {task.status} after {timeout_s} s")


def stream(task_id: str, timeout_s: float) -> Rule[None]:
    """Yield a task in each of its states until its end. Raises Problem and TimedOut."""
    end_s = time.monotonic() + timeout_s
    timed_out = TimedOut(f"{task_id} has not ended within {timeout_s} s")
    seen: str | None = None
    while (left_s := end_s - time.monotonic()) > 0:
        headers = {"Last-Event-ID": seen} if seen else {}
        silence_s = min(STREAM_TIMEOUT_S, left_s)
        call = Call("GET", f"/tasks/{task_id}/events", headers, timeout_s=silence_s, stream=True)
        reply = yield from _ask(call, end_s)
        if reply.status != 200:
            raise _unanswered(reply, timed_out)
        while (line := (yield ReadLine(reply))) is not None:
            if line.startswith("data: "):
                task = _task(json.loads(line.removeprefix("data: ")))
                seen = task.status
                yield task
                if task.final:
                    return
            if time.monotonic() + silence_s > end_s + SLACK_S:
                break  # the next read could exceed the deadline: reopen with a shorter time-out
        yield Sleep(BACKOFF_MIN_S)
    raise timed_out


def cancel(task_id: str, deadline_s: float) -> Rule[Task]:
    """Cancel a task; returns it as REVOKED, STARTED (asked to end), or with an earlier final state.

    Raises Problem, or OutcomeUnknown if there was no definite answer in time.
    """
    reply = yield from _ask(Call("DELETE", f"/tasks/{task_id}"), time.monotonic() + deadline_s)
    if reply.status in {200, 202, 409}:
        return _task({"task_id": task_id, **reply.document})
    unknown = OutcomeUnknown(f"no definite answer to cancelling {task_id}: cancel it again to know")
    raise _unanswered(reply, unknown)


def _outcome(told: dict[str, Any], key: str) -> Outcome:
    if told["status"] == 202:
        return str(told["task_id"])
    problem = Problem(told["status"], told)
    return OutcomeUnknown(str(problem), key) if problem.kind == "outcome-unknown" else problem


def _settled(outcome: Outcome | None) -> bool:
    """Whether a retry of the batch cannot change an outcome."""
    return isinstance(outcome, Problem) and outcome.status == 422


def _together(before: Outcome | None, now: Outcome) -> Outcome:
    """Combine two outcomes of an input: accepted stays accepted, and a later refusal does not replace unknown."""
    if isinstance(now, str) or before is None:
        return now
    if isinstance(before, str | OutcomeUnknown) or _settled(before):
        return before
    return now


def _post(
    path: str, body: object, key: str | None, end_s: float
) -> Generator[Step, Any, tuple[Reply, OutcomeUnknown | None]]:
    """Post until there is a definite answer. Without a key, a post that may have been accepted is not retried.

    Returns the answer, and an OutcomeUnknown if an earlier try may have been accepted. Raises Problem and
    OutcomeUnknown.
    """
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    # UTF-8 without escapes: the API's limit counts bytes. The API refuses lone surrogates
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    content = text.encode(errors="surrogatepass")
    unknown: OutcomeUnknown | None = None
    pauses = _pauses()
    while True:
        reply: Reply = yield Call("POST", path, headers, content, timeout_s=_patience_s(CALL_TIMEOUT_S, end_s))
        if reply.status == 202 or "outcomes" in reply.document:
            return reply, unknown
        kind = str(reply.document.get("type", "")).rpartition(":")[2]
        maybe = (not reply.status and reply.sent) or reply.status in AMBIGUOUS or kind == "outcome-unknown"
        if maybe or kind == "request-open":
            unknown = OutcomeUnknown(reply.document.get("detail") or f"no definite answer, last {reply.status}", key)
        pause_s = _pause_s(reply, pauses)
        if (_again(reply) or maybe) and (key or not maybe) and time.monotonic() + pause_s < end_s:
            yield Sleep(pause_s)
        else:
            raise unknown or _problem(reply)


def _ask(call: Call, end_s: float) -> Generator[Step, Any, Reply]:
    """Send an idempotent request, and retry it; returns the last reply if the time is over."""
    pauses = _pauses()
    while True:
        reply: Reply = yield replace(call, timeout_s=_patience_s(call.timeout_s, end_s))
        pause_s = _pause_s(reply, pauses)
        if not (_again(reply) or reply.status in AMBIGUOUS) or time.monotonic() + pause_s > end_s:
            return reply
        yield Sleep(pause_s)


def _patience_s(usual_s: float, end_s: float) -> float:
    """Time-out of an answer that exceeds the deadline by at most SLACK_S."""
    return min(usual_s, max(0.0, end_s - time.monotonic()) + SLACK_S)


def _again(reply: Reply) -> bool:
    return reply.status in {0, 429, 503} or (reply.status == 409 and "request-open" in str(reply.document.get("type")))


def _unanswered(reply: Reply, otherwise: Exception) -> Exception:
    """The problem of an answer, or `otherwise` if it is a temporary one."""
    return otherwise if _again(reply) or reply.status in AMBIGUOUS else Problem(reply.status, reply.document)


def _pauses() -> Generator[float, None, None]:
    pause_s = BACKOFF_MIN_S
    while True:
        yield pause_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        pause_s = min(2 * pause_s, BACKOFF_MAX_S)


def _pause_s(reply: Reply, pauses: Generator[float, None, None]) -> float:
    """Retry-After with jitter if it was sent, else a backoff."""
    after = reply.headers.get("retry-after", "")
    backoff_s = next(pauses)
    return int(after) * random.uniform(1, 1.25) if after.isdecimal() else backoff_s  # noqa: S311


def _task(document: dict[str, Any]) -> Task:
    return Task(document["task_id"], document["task_status"], document.get("task_result"))
