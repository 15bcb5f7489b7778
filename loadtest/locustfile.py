"""The users. Each does with every answer what docs/api.md says, by the rules of apps/client, and checks it."""

import gc
import os
import random
import select
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import gevent
from gevent import monkey
from geventhttpclient import client as http_client
from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.user.task import LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from apps.client import OutcomeUnknown, Problem, rules
from apps.client.rules import Call, Reply, Rule, Sleep
from loadtest import shapes
from loadtest.ledger import Writer
from loadtest.stages import Stages

__all__ = ["Stages"]

T = TypeVar("T")
Given = dict[str, Any]
Wrong = Callable[[dict[str, Any]], str | None]

# How Locust's process is told of the run, beside the shape.
LEDGER, STARTED, HOST, KEY = "LOAD_LEDGER", "LOAD_STARTED_S", "SLUICE_HOST", "SLUICE_KEY"
NAMES = (Path(__file__).parent / "names.txt").read_text(encoding="utf-8").splitlines()
LONGEST = max(map(len, NAMES))
# A client of a long run that nobody ends; Locust ends those that still wait when the shape is over.
RESULT_TIMEOUT_S = 24 * 3600.0
# Each look for cycles among the objects of 7,000 users stops all of them for half a second, once a minute, which their
# clocks would count as the system's; and those among new objects, after each 700 as Python has it, took a twelfth of
# Locust's time, which on one machine is the system's. So both are rare.
GC_THRESHOLDS = (10_000, 10, 1_000)
REPETITIONS = (1, 3)
OLD = 10_000

# Else it sends a GET again, unseen, when the connection closes before the answer: the rules do that, and it is counted.
http_client.IDEMPOTENT_METHODS = frozenset()

_poll = monkey.get_original("select", "poll")


def _idle(_: ConnectionPool, sock: gevent.socket.socket) -> bool:
    """Whether an idle connection is still one: there is nothing to read, and it is not closed.

    geventhttpclient 2.6 asks select(), which takes no descriptor above 1,023: each request of all further users had a
    connection of its own, and what that costs was in their clocks.
    """
    if sock.fileno() < 0:
        return False
    poll = _poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


ConnectionPool._is_socket_alive = _idle  # noqa: SLF001

SHAPE = shapes.load(os.environ[shapes.SHAPE])
_old: deque[tuple[str, Given]] = deque(maxlen=OLD)
_numbers = count(1)
_writer: Writer


class Accepted(NamedTuple):
    """A task that was answered with 202, then."""

    id: str
    given: Given
    at_s: float


def now_s() -> float:
    """Since the start of the run."""
    return time.monotonic() - float(os.environ[STARTED])


def inputs() -> Given:
    """Of a task: one of the names, numbered, so that no two tasks have the same result."""
    (kind,) = random.choices(tuple(SHAPE.mix.tasks), tuple(SHAPE.mix.tasks.values()))
    number = f" {next(_numbers)}"
    name = random.choice(NAMES)[: LONGEST - len(number)] + number
    return {"task": kind, "name": name, "seconds": SHAPE.task_s[kind]}


class User(FastHttpUser):  # type: ignore[misc]  # Locust is not among the development tools: it has no types there
    """What all users have: the rules over Locust's client, and the ledger."""

    abstract = True
    concurrency = 1  # a client has one connection
    connection_timeout = 10.0
    network_timeout = rules.WAIT_S + rules.CALL_TIMEOUT_S
    _state: str | None  # Locust's

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        host, key = os.environ.get(HOST, ""), os.environ.get(KEY, "")
        self._headers = ({"Authorization": f"Bearer {key}"} if key else {}) | ({"Host": host} if host else {})

    def on_start(self) -> None:
        """Begins at any time: a ramp starts all of a second's users at once, who would go on posting together."""
        gevent.sleep(random.random())

    def wait_time(self) -> float:
        """Thinks."""
        return random.uniform(*SHAPE.think_s)

    def stop(self, force: bool = False) -> bool:  # noqa: FBT001, FBT002 - Locust's signature
        """Locust ends who waits, a moment later: a wait that is over by then would be followed by half a post."""
        if self._state != LOCUST_STATE_WAITING:
            return bool(super().stop(force=force))
        self._state = LOCUST_STATE_STOPPING  # whose wait is over looks at it
        self.group.killone(self.greenlet)
        return True

    def submit(self, given: Given, key: str | None = None) -> Accepted | None:
        """Post a task; None where it was not accepted."""
        begun_s = now_s()
        task_id = self.carried_out(rules.submit(given, key, rules.CALL_TIMEOUT_S), "/tasks", _not_accepted)
        return None if task_id is None else self.noted(task_id, given, begun_s)

    def noted(self, task_id: str, given: Given, begun_s: float) -> Accepted:
        """Put an accepted task into the ledger."""
        at_s = now_s()
        _writer.add(at_s, "accepted", task_id, given["task"], given["name"], _ms(at_s - begun_s))
        return Accepted(task_id, given, at_s)

    def follow(self, accepted: Accepted) -> None:
        """Wait for the result, and check it."""
        task_id, given, accepted_s = accepted

        def wrong(document: dict[str, Any]) -> str | None:
            if document.get("task_id") == task_id and document.get("task_status") in {"PENDING", "STARTED"}:
                return None
            what = _not_done(document, task_id, given)
            if what:
                _writer.add(now_s(), "wrong", task_id, what)
            return what

        if self.carried_out(rules.result(task_id, RESULT_TIMEOUT_S), "/tasks/{id}?wait=20", wrong):
            at_s = now_s()
            _writer.add(at_s, "finished", task_id, _ms(at_s - accepted_s - SHAPE.task_s[given["task"]]))
            _old.append((task_id, given))

    def carried_out(self, rule: Rule[T], name: str, wrong: Wrong) -> T | None:
        """What a rule answers; None where it gives up, which is counted as a failure by then."""
        reply: Reply | None = None
        try:
            while True:
                step = rule.send(reply)
                reply = None
                if isinstance(step, Sleep):
                    gevent.sleep(step.seconds)
                elif isinstance(step, Call):
                    reply = self._call(step, name, wrong)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except (Problem, OutcomeUnknown):
            return None

    def _call(self, call: Call, name: str, wrong: Wrong) -> Reply:
        headers = self._headers | call.headers
        with self.client.request(
            call.method, call.path, name=name, data=call.body, headers=headers, catch_response=True
        ) as response:
            status = response.status_code
            lower = {key.lower(): value for key, value in (response.headers or {}).items()}
            # refused before anything was sent, or lost afterwards: only the first is safe to repeat without a key
            sent = not isinstance(getattr(response, "error", None), ConnectionRefusedError)
            reply = Reply(status, lower, response.content or b"", sent=sent)
            kind = str(reply.document.get("type", "")).rpartition(":")[2]
            if status in SHAPE.intended and kind == "refused" and "retry-after" in lower:
                _writer.add(now_s(), "refused", status)
                response.success()
            elif status not in {200, 202}:
                response.failure(f"{status} {kind}".strip() if status else repr(getattr(response, "error", None)))
            elif what := wrong(reply.document):
                response.failure(what)
            else:
                response.success()
            return reply


class Poster(User):
    """Posts a task, waits for its result, checks it, thinks."""

    weight = SHAPE.mix.users["Poster"]

    @task
    def turn(self) -> None:
        key = uuid4().hex if random.random() < SHAPE.mix.keyed_share else None
        if accepted := self.submit(inputs(), key):
            self.follow(accepted)


class BatchPoster(User):
    """Posts a batch, and thinks as long as those who post its tasks one by one."""

    weight = SHAPE.mix.users["BatchPoster"]

    def wait_time(self) -> float:
        return super().wait_time() * SHAPE.mix.batch_tasks

    @task
    def turn(self) -> None:
        batch = [inputs() for _ in range(SHAPE.mix.batch_tasks)]
        begun_s = now_s()
        rule = rules.submit_batch(batch, uuid4().hex, rules.CALL_TIMEOUT_S)
        outcomes = self.carried_out(rule, "/tasks/batch", _not_all_accepted) or []
        accepted = [
            self.noted(one, given, begun_s) for one, given in zip(outcomes, batch, strict=False) if isinstance(one, str)
        ]
        # the shortest first: each is asked for when it is due, on the one connection that a client has
        for one in sorted(accepted, key=lambda one: SHAPE.task_s[one.given["task"]]):
            self.follow(one)


class Reader(User):
    """Reads an old task again: it is as it was."""

    weight = SHAPE.mix.users["Reader"]

    @task
    def turn(self) -> None:
        if _old:
            task_id, given = random.choice(_old)
            rule = rules.result(task_id, 0)
            self.carried_out(rule, "/tasks/{id}", lambda document: _not_done(document, task_id, given))


class Retrier(User):
    """Sends a post with a key again, as a client does that got no answer: it is one task."""

    weight = SHAPE.mix.users["Retrier"]

    @task
    def turn(self) -> None:
        given, key = inputs(), uuid4().hex
        accepted = self.submit(given, key)
        if accepted is None:
            return

        def wrong(document: dict[str, Any]) -> str | None:
            same = document.get("task_id") == accepted.id
            return _not_accepted(document) if same else "the same key was given another id"

        for _ in range(random.randint(*REPETITIONS)):
            self.carried_out(rules.submit(given, key, rules.CALL_TIMEOUT_S), "/tasks (again)", wrong)
        self.follow(accepted)


class Slow(Poster):
    """Leaves its connection idle for long before it posts on it again."""

    weight = SHAPE.mix.users["Slow"]

    def wait_time(self) -> float:
        return super().wait_time() + random.uniform(*SHAPE.mix.slow_idle_s)


def _not_accepted(document: dict[str, Any]) -> str | None:
    """What is wrong with the answer to a post."""
    fine = isinstance(document.get("task_id"), str) and document.get("task_status") == "PENDING"
    return None if fine else "202 without id and state"


def _not_all_accepted(document: dict[str, Any]) -> str | None:
    outcomes = document.get("outcomes", [])
    if len(outcomes) != SHAPE.mix.batch_tasks:
        return f"{len(outcomes)} outcomes"
    refused = [outcome["status"] for outcome in outcomes if _refused(outcome)]
    for status in refused:
        _writer.add(now_s(), "refused", status)
    return next((what for one in outcomes if not _refused(one) and (what := _not_accepted(one))), None)


def _refused(outcome: dict[str, Any]) -> bool:
    """Of one input of a batch, as the shape intends."""
    return outcome.get("status") in SHAPE.intended and str(outcome.get("type", "")).endswith(":refused")


def _not_done(document: dict[str, Any], task_id: str, given: Given) -> str | None:
    """What is wrong with a result: id, state and body must be those of this task."""
    if document.get("task_id") != task_id:
        return "another task's id"
    if document.get("task_status") != "SUCCESS":
        return f"ended as {document.get('task_status')}"
    result = document.get("task_result")
    if result == {"name": given["name"]}:
        return None
    return "another task's result" if isinstance(result, dict) and "name" in result else "a result of another form"


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


@events.init.add_listener
def _on_init(environment: Environment, **_: Any) -> None:
    global _writer  # noqa: PLW0603 - one run a process
    if isinstance(environment.runner, WorkerRunner):
        raise SystemExit("The ledger is one process's: run this without --processes and --worker.")
    assert set(SHAPE.mix.tasks) <= set(SHAPE.task_s)  # noqa: S101 - shapes.toml and the tasks are of one project
    _writer = Writer(Path(os.environ[LEDGER]))
    gc.set_threshold(*GC_THRESHOLDS)
    ticker = gevent.spawn(_tick, environment)
    environment.events.quitting.add_listener(lambda **_: ticker.kill())


def _tick(environment: Environment) -> None:
    while True:
        total = environment.stats.total
        _writer.add(now_s(), "second", environment.runner.user_count, total.num_requests, total.num_failures)
        _writer.flush()
        gevent.sleep(1)


@events.quitting.add_listener
def _on_quitting(environment: Environment, **_: Any) -> None:
    failures = {f"{one.method} {one.name}: {one.error}": one.occurrences for one in environment.stats.errors.values()}
    failures |= {f"a user's own error: {one['msg']}": one["count"] for one in environment.runner.exceptions.values()}
    _writer.add(now_s(), "end", failures, environment.runner.cpu_warning_emitted)
    _writer.close()
    environment.process_exit_code = 0  # the gates judge
