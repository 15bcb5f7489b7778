"""Locust's users. They handle every answer by the rules of apps/client, as docs/api.md requires, and check results."""

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

# Environment variables with the run's parameters, besides the shape.
LEDGER, STARTED, HOST, KEY = "LOAD_LEDGER", "LOAD_STARTED_S", "SLUICE_HOST", "SLUICE_KEY"
NAMES = (Path(__file__).parent / "names.txt").read_text(encoding="utf-8").splitlines()
LONGEST = max(map(len, NAMES))
# Longer than any run: Locust ends the users that still wait when the shape is over.
RESULT_TIMEOUT_S = 24 * 3600.0
# Makes garbage collection rare. With 7,000 users, a full collection stops all users for half a second once a minute,
# which their clocks would attribute to the system. Collections of new objects, by default after every 700 objects, took
# a twelfth of Locust's CPU time, which a system on the same machine lacks.
GC_THRESHOLDS = (10_000, 10, 1_000)
REPETITIONS = (1, 3)
OLD = 10_000

# Otherwise the HTTP client would silently repeat a GET whose connection was closed. The rules repeat and count it.
http_client.IDEMPOTENT_METHODS = frozenset()

_poll = monkey.get_original("select", "poll")


def _idle(_: ConnectionPool, sock: gevent.socket.socket) -> bool:
    """Whether an idle connection is still open and has no data to read.

    geventhttpclient 2.6 uses select(), which supports no descriptor above 1,023: all further users would open a new
    connection for each request, which would increase the measured latency.
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
    """An accepted task: its id, its input, and the time of its 202 in seconds since the start."""

    id: str
    given: Given
    at_s: float


def now_s() -> float:
    """Seconds since the start of the run."""
    return time.monotonic() - float(os.environ[STARTED])


def inputs() -> Given:
    """The input of a new task. Its name ends with a number, so that all tasks have different results."""
    (kind,) = random.choices(tuple(SHAPE.mix.tasks), tuple(SHAPE.mix.tasks.values()))
    number = f" {next(_numbers)}"
    name = random.choice(NAMES)[: LONGEST - len(number)] + number
    return {"task": kind, "name": name, "seconds": SHAPE.task_s[kind]}


class User(FastHttpUser):  # type: ignore[misc]  # Locust is not among the development tools: it has no types there
    """Base class of the users: it runs the client's rules with Locust's HTTP client, and writes the ledger."""

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
        """Start at a random time: Locust starts all users of a second at once, and they would keep posting together."""
        gevent.sleep(random.random())

    def wait_time(self) -> float:
        """The think time in seconds."""
        return random.uniform(*SHAPE.think_s)

    def stop(self, force: bool = False) -> bool:  # noqa: FBT001, FBT002 - Locust's signature
        """Stop a thinking user at once.

        Locust would stop the user a moment later, and could interrupt the next post if the think time ends before.
        """
        if self._state != LOCUST_STATE_WAITING:
            return bool(super().stop(force=force))
        self._state = LOCUST_STATE_STOPPING  # read by a user whose think time ends
        self.group.killone(self.greenlet)
        return True

    def submit(self, given: Given, key: str | None = None) -> Accepted | None:
        """Post a task. Returns None if it was not accepted."""
        begun_s = now_s()
        task_id = self.carried_out(rules.submit(given, key, rules.CALL_TIMEOUT_S), "/tasks", _not_accepted)
        return None if task_id is None else self.noted(task_id, given, begun_s)

    def noted(self, task_id: str, given: Given, begun_s: float) -> Accepted:
        """Write an accepted task to the ledger."""
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
        """Run a rule, and return its result. None if the rule gives up; its failures have been counted."""
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
            # a request without a key may be repeated only if it was not sent, because the connection was refused
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
    """Posts a batch, and thinks as long as users who post the same tasks one by one."""

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
        # shortest first, because a client has one connection and reads each result when it is due
        for one in sorted(accepted, key=lambda one: SHAPE.task_s[one.given["task"]]):
            self.follow(one)


class Reader(User):
    """Reads an old task again, and checks that the result is unchanged."""

    weight = SHAPE.mix.users["Reader"]

    @task
    def turn(self) -> None:
        if _old:
            task_id, given = random.choice(_old)
            rule = rules.result(task_id, 0)
            self.carried_out(rule, "/tasks/{id}", lambda document: _not_done(document, task_id, given))


class Retrier(User):
    """Repeats a post with the same key, as a client without an answer does, and checks that the id is the same."""

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
    """Leaves its connection idle for a long time between posts."""

    weight = SHAPE.mix.users["Slow"]

    def wait_time(self) -> float:
        return super().wait_time() + random.uniform(*SHAPE.mix.slow_idle_s)


def _not_accepted(document: dict[str, Any]) -> str | None:
    """The fault of an answer to a post, or None."""
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
    """Whether the outcome of an input of a batch is an intended refusal."""
    return outcome.get("status") in SHAPE.intended and str(outcome.get("type", "")).endswith(":refused")


def _not_done(document: dict[str, Any], task_id: str, given: Given) -> str | None:
    """The fault of a result, or None. Id, state and body must be those of this task."""
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
    global _writer  # noqa: PLW0603 - one run per process
    if isinstance(environment.runner, WorkerRunner):
        raise SystemExit("The ledger supports one Locust process: omit --processes and --worker.")
    assert set(SHAPE.mix.tasks) <= set(SHAPE.task_s)  # noqa: S101 - shapes.toml and the tasks are maintained together
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
    environment.process_exit_code = 0  # the gates decide
