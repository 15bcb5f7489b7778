"""What a client does with each answer (docs/api.md), without I/O: generators that say what to do next.

A rule yields a Step and is sent its Reply; what it returns is the result of the call. `apps.client.client` carries the
steps out, blocking or with asyncio.
"""

import json
import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
# What one answer may take; a post is answered within the API's own deadline of a few seconds.
CALL_TIMEOUT_S = 15.0
WAIT_S = 20.0
# Three comments of an event stream: it is dead when none of them comes.
STREAM_TIMEOUT_S = 45.0
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0
# Not answered by the API itself but in front of it, or by an API that cannot now: nothing says whether it acted.
AMBIGUOUS = frozenset({500, 502, 504})


@dataclass(frozen=True)
class Call:
    """Send a request; `stream` leaves the body to be read line by line."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_s: float = CALL_TIMEOUT_S
    stream: bool = False


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class ReadLine:
    """Read the next line of an answer; None at its end or when the connection is lost."""

    reply: "Reply"


@dataclass(frozen=True)
class Reply:
    """An answer; status 0 when none came, and then `sent` says whether the request may have arrived."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: bool = True
    lines: Any = None

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object in the body, or an empty one: what stands in front of the API answers in HTML."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class Task:
    """A task as the API tells of it."""

    id: str
    status: str
    result: Any = None

    @property
    def final(self) -> bool:
        return self.status in FINAL


class Problem(Exception):
    """A definite error: nothing was done. `kind` is the last part of its type, such as `refused` or `not-found`."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self.document = document
        self.kind = str(document.get("type", "")).rpartition(":")[2]
        super().__init__(str(document.get("detail") or f"answered by {status}" if status else "no answer"))


class OutcomeUnknown(Exception):
    """A post may have been accepted: the same post with the same key tells, whenever it is sent."""


class TimedOut(Exception):
    """The task has not ended in the time given; it goes on."""


Step = Call | Sleep | ReadLine
Rule = Generator[Step | Task, Any, T]


def submit(inputs: Mapping[str, Any], key: str | None, deadline_s: float) -> Rule[str]:
    """Post one task; answers its id. Raises Problem and OutcomeUnknown."""
    reply = yield from _post("/tasks", dict(inputs), key, time.monotonic() + deadline_s)
    return str(reply.document["task_id"])


def submit_batch(inputs: Sequence[Mapping[str, Any]], key: str, deadline_s: float) -> Rule[list[str | Problem]]:
    """Post a batch until nothing more of it can be accepted; answers each input's id or problem, in order."""
    end_s = time.monotonic() + deadline_s
    pauses = _pauses()
    while True:
        reply = yield from _post("/tasks/batch", {"tasks": [dict(one) for one in inputs]}, key, end_s, also_ok=(422,))
        outcomes = reply.document.get("outcomes")
        if outcomes is None:
            raise Problem(reply.status, reply.document)
        pause_s = next(pauses)
        if all(one["status"] in {202, 422} for one in outcomes) or time.monotonic() + pause_s > end_s:
            return [one["task_id"] if one["status"] == 202 else Problem(one["status"], one) for one in outcomes]
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
    """Yield a task in each of its states, to its end. Raises Problem and TimedOut."""
    end_s = time.monotonic() + timeout_s
    seen: str | None = None
    while True:
        headers = {"Last-Event-ID": seen} if seen else {}
        call = Call("GET", f"/tasks/{task_id}/events", headers, timeout_s=STREAM_TIMEOUT_S, stream=True)
        reply = yield from _ask(call, end_s)
        if reply.status != 200:
            raise _unanswered(reply, TimedOut(f"{task_id} has not ended within {timeout_s} s"))
        while (line := (yield ReadLine(reply))) is not None:
            if line.startswith("data: "):
                task = _task(json.loads(line.removeprefix("data: ")))
                seen = task.status
                yield task
                if task.final:
                    return
            if time.monotonic() > end_s:
                raise TimedOut(f"{task_id} has not ended within {timeout_s} s")
        yield Sleep(BACKOFF_MIN_S)


def cancel(task_id: str, deadline_s: float) -> Rule[Task]:
    """Cancel a task; answers it as it is then: REVOKED, STARTED (asked to end), or how it had ended before."""
    reply = yield from _ask(Call("DELETE", f"/tasks/{task_id}"), time.monotonic() + deadline_s)
    document = reply.document
    if reply.status not in {200, 202, 409}:
        raise Problem(reply.status, document)
    return _task({"task_id": task_id, **document})


def _post(
    path: str, body: object, key: str | None, end_s: float, also_ok: Iterable[int] = ()
) -> Generator[Step, Any, Reply]:
    """Post until there is a definite answer: a key makes sending it again safe, its absence makes it a choice."""
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    call = Call("POST", path, headers, json.dumps(body).encode())
    unknown = False
    pauses = _pauses()
    while True:
        reply: Reply = yield call
        if reply.status in {202, *also_ok}:
            return reply
        kind = str(reply.document.get("type", "")).rpartition(":")[2]
        maybe = (not reply.status and reply.sent) or reply.status in AMBIGUOUS or kind == "outcome-unknown"
        unknown = unknown or maybe or kind == "request-open"
        again = _again(reply) or maybe
        pause_s = _pause_s(reply, pauses)
        if again and (key or not maybe) and time.monotonic() + pause_s < end_s:
            yield Sleep(pause_s)
        elif unknown and again:
            raise OutcomeUnknown(reply.document.get("detail") or f"no definite answer; the last was {reply.status}")
        else:
            raise Problem(reply.status, reply.document)


def _ask(call: Call, end_s: float) -> Generator[Step, Any, Reply]:
    """Send a request that may be sent again as often as one likes; answers the last reply when the time is over."""
    pauses = _pauses()
    while True:
        reply: Reply = yield call
        pause_s = _pause_s(reply, pauses)
        if not (_again(reply) or reply.status in AMBIGUOUS) or time.monotonic() + pause_s > end_s:
            return reply
        yield Sleep(pause_s)


def _again(reply: Reply) -> bool:
    return reply.status in {0, 429, 503} or (reply.status == 409 and "request-open" in str(reply.document.get("type")))


def _unanswered(reply: Reply, timed_out: TimedOut) -> Exception:
    return timed_out if _again(reply) or reply.status in AMBIGUOUS else Problem(reply.status, reply.document)


def _pauses() -> Generator[float, None, None]:
    pause_s = BACKOFF_MIN_S
    while True:
        yield pause_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        pause_s = min(2 * pause_s, BACKOFF_MAX_S)


def _pause_s(reply: Reply, pauses: Generator[float, None, None]) -> float:
    """Retry-After where it was sent, a little spread so that all do not come back at once; else a backoff."""
    after = reply.headers.get("retry-after", "")
    backoff_s = next(pauses)
    return int(after) * random.uniform(1, 1.25) if after.isdecimal() else backoff_s  # noqa: S311


def _task(document: dict[str, Any]) -> Task:
    return Task(document["task_id"], document["task_status"], document.get("task_result"))
