"""Compares the history of a run with the promises, and returns the findings. Pure: no I/O.

lost            accepted, but no final state can be read
stuck           accepted, but STARTED forever
two-states      a client and the APIs were given different final states
ended-twice     a final state was stored more than once
wrong-end       ended differently from its kind of task, or with a result of another task or of none of its runs
condemned       ended by the delivery limit although it did nothing wrong
no-effect       SUCCESS without a finished run
unasked         ran, but was never posted
refused-ran     ran although its post was refused
two-ids         one post ran under more ids than it was given
two-publishes   runs of more than one publish under one id: `begin` let a second one in
duplicate       finished more than once without a lost or disconnected worker in between
left-over       a queue contains messages, or has no figures, at the end
parked          the parked messages are not those of the dead letters
nemesis         a fault could not be injected or undone, or the system did not recover in time
left-running    a process started by a task runs although the task was ended with its processes
crashed         a process ended without a fault
counters        /metrics contradict the answers of the clients, or could not be read at the end
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from apps.contract import failures, topology
from apps.contract.states import FINAL
from tests.chaos.endings import ENDLESS, RAISED, RETURNED, TOO_LARGE, data_is_right, failure_is_right
from tests.chaos.faults import named
from tests.chaos.history import History
from tests.chaos.journal import Effect, Post, Try
from tests.chaos.world import Life

MUST_FAIL = {*RAISED, TOO_LARGE}
# Type of the failure in the dead letters, per kind of task.
GIVEN_UP = {"poison": failures.DELIVERY_LIMIT} | dict.fromkeys(ENDLESS, failures.HARD_TIME_LIMIT)
# Maximum length of a result in a finding.
SHOWN_CHARS = 200
# The broker delivers the tasks of a lost connection to another worker immediately, and the first worker notices the
# loss at about that time. It still begins tasks that it had received, if a process was free just before.
CUT_SLACK_S = 1.0
AWAY_SLACK_S = 10.0
# Failures of a retry without a confirm; the second one if the broker did not accept the reason either.
REFUSED = {failures.RETRY_REFUSED, failures.REJECTED}
# Maximum time from the begin of a run to the answer to its retry's publish.
RETRY_SLACK_S = 5.0
WORKER_KILLED = {"kill-worker", "kill-unstored"}
# If nodes are separated, or a worker is separated from the broker, the broker delivers the worker's tasks to another
# one. The first worker may notice the lost connection, or end its run, much later.
AWAY = frozenset({
    "pause-broker", "pause-leader", "cut-node", "part-node", "kill-leader", "roll-broker", "lose-disk",
    "silence-workers",
})  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A broken promise."""

    kind: str
    about: str
    detail: str


class Checker:
    """Checks one history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._reads = defaultdict(list)
        for read in history.reads:
            self._reads[read.task_id].append(read)
        self._effects: dict[str, list[Effect]] = defaultdict(list)
        self._by_name: dict[str, list[Effect]] = defaultdict(list)
        for effect in history.effects:
            self._effects[effect.task_id].append(effect)
            self._by_name[effect.name].append(effect)
        self.accepted = [post for post in history.posts if post.task_id]
        # accepted, but the client ended before it noted this
        self._answered_alone = history.accepted_ids() - {post.task_id for post in self.accepted}

    def findings(self) -> list[Finding]:
        """Return all findings."""
        return [
            *self._ends(),
            *self._written_once(),
            *self._effects_of_posts(),
            *self._published_once(),
            *self.duplicates(explained=False),
            *self._queues(),
            *self._left_running(),
            *(Finding("nemesis", each.kind, each.error) for each in self.history.failed),
            *(Finding("crashed", crash.name, crash.last_lines) for crash in self.history.crashes),
            *self._counters(),
        ]

    def _ends(self) -> Iterator[Finding]:
        posts = {post.task_id: post for post in self.accepted}
        told = {seen.task_id: (seen.state, seen.result) for seen in self.history.seen}
        for task_id in (*filter(None, posts), *sorted(self._answered_alone)):
            post = posts.get(task_id)
            reads = self._reads[task_id]
            states = {read.state for read in reads}
            if not reads or not states <= FINAL:
                yield Finding(
                    "stuck" if "STARTED" in states else "lost",
                    task_id,
                    f"{post.task if post else 'answered alone'}: {', '.join(sorted(states)) or 'not read'}",
                )
                continue
            ends = [(read.state, read.result) for read in reads]
            if told.get(task_id, ends[0]) != ends[0] or any(end != ends[0] for end in ends):
                found = [str(end)[:SHOWN_CHARS] for end in (told.get(task_id), *ends)]
                yield Finding("two-states", task_id, ", ".join(found))
            if post:
                yield from self._right_end(post, *ends[0])
        for read in self.history.flood_reads:
            if read.state not in FINAL:
                yield Finding("stuck" if read.state == "STARTED" else "lost", read.task_id, f"attacker's: {read.state}")

    def _right_end(self, post: Post, state: str, result: object) -> Iterator[Finding]:
        assert post.task_id is not None
        type_, message = (result.get("type"), str(result.get("message"))) if isinstance(result, dict) else (None, "")
        if state == "SUCCESS":
            yield from self._right_success(post, post.task_id, result)
        elif post.task in GIVEN_UP:
            # A broker that accepts no reason gets the dead letter without one.
            without_reason = type_ == failures.REJECTED and self._broker_away(post.task_id)
            if type_ != GIVEN_UP[post.task] and not (without_reason and post.task in ENDLESS):
                yield Finding("wrong-end", post.task_id, f"{post.task}: {type_}: {message}")
        elif type_ == failures.DELIVERY_LIMIT:
            yield Finding("condemned", post.task_id, f"{post.task}: {message}")
        elif post.task == "fail":
            if (type_, message) != ("ValueError", post.name):
                yield Finding("wrong-end", post.task_id, f"fail: {type_}: {message}")
        elif post.task in MUST_FAIL:
            if not failure_is_right(post.task, post.name, type_, message):
                yield Finding("wrong-end", post.task_id, f"{post.task}: {type_}: {message[:SHOWN_CHARS]}")
        elif not (post.task == "flaky" and type_ in REFUSED and self._broker_away(post.task_id)):
            yield Finding("wrong-end", post.task_id, f"{post.task}: {state} {type_}: {message[:SHOWN_CHARS]}")

    def _right_success(self, post: Post, task_id: str, result: object) -> Iterator[Finding]:
        pids = {str(effect.pid) for effect in self._effects[task_id] if effect.step == "done"}
        fields = result if isinstance(result, dict) else {}
        name, state = fields.get("name_task"), str(fields.get("state"))
        if post.task in {"fail", *GIVEN_UP} | MUST_FAIL:
            yield Finding("wrong-end", task_id, f"{post.task}: SUCCESS")
        elif not pids:
            yield Finding("no-effect", task_id, post.task)
        elif name != post.name or state.partition("-")[0] not in pids:  # the format of tests/chaos/tasks.py
            told = str(result)[:SHOWN_CHARS]
            yield Finding("wrong-end", task_id, f"{post.task} {post.name}: {told}, done by {', '.join(pids)}")
        elif post.task in RETURNED and not data_is_right(post.task, post.name, fields.get("data")):
            yield Finding("wrong-end", task_id, f"{post.task} {post.name}: {str(result)[:SHOWN_CHARS]}")

    def _broker_away(self, task_id: str) -> bool:
        """Return whether the broker was down, full or without a route while the retry of this task was published."""
        begun_s = max((effect.at_s for effect in self._effects[task_id] if effect.step == "begun"), default=0.0)
        return any(
            named(fault.kind).parts & {"broker", "worker-network"}
            and fault.injected_s <= begun_s + RETRY_SLACK_S
            and begun_s <= fault.healed_s + AWAY_SLACK_S
            for fault in self.history.faults
        )

    def retries_refused(self) -> int:
        """Return the number of tasks that ended as FAILURE because the broker refused their retry."""
        ends = ((post.task, read.result) for post in self.accepted for read in self._reads[post.task_id or ""][:1])
        return sum(
            task == "flaky" and isinstance(result, dict) and result.get("type") in REFUSED for task, result in ends
        )

    def _written_once(self) -> Iterator[Finding]:
        written = Counter(stored.task_id for stored in self.history.stored)
        for task_id, times in written.items():
            if times > 1:
                states = [stored.state for stored in self.history.stored if stored.task_id == task_id]
                yield Finding("ended-twice", task_id, ", ".join(states))

    def _effects_of_posts(self) -> Iterator[Finding]:
        posts = {post.name: post for post in self.history.posts}
        maybe = Counter(each.name for each in self.history.tries if each.sent and each.status != 202)
        for name, effects in self._by_name.items():
            post = posts.get(name)
            ids = {effect.task_id for effect in effects}
            if post is None:
                yield Finding("unasked", name, ", ".join(ids))
            elif post.outcome == "refused":
                yield Finding("refused-ran", name, ", ".join(ids))
            elif post.task_id is not None and ids != {post.task_id}:
                yield Finding("two-ids", name, f"answered {post.task_id}, ran {', '.join(ids)}")
            elif len(ids) > 1:
                yield Finding("two-ids", name, f"unknown after {maybe[name]} tries, ran {', '.join(ids)}")
        answered: dict[str, set[str]] = defaultdict(set)
        for each in self.history.tries:
            if each.task_id:
                answered[each.name].add(each.task_id)
        for name, ids in answered.items():
            if len(ids) > 1:
                yield Finding("two-ids", name, f"answered {', '.join(ids)}")

    def _published_once(self) -> Iterator[Finding]:
        for task_id, effects in self._effects.items():
            publishes = {effect.publish_id for effect in effects}
            if len(publishes) > 1:
                yield Finding("two-publishes", task_id, ", ".join(sorted(publishes)))

    def duplicates(self, *, explained: bool) -> Iterator[Finding]:
        """Yield runs that were finished and then finished again, with an explanation or without."""
        stored_s: dict[str, float] = {}
        for each in self.history.stored:
            stored_s[each.task_id] = min(each.at_s, stored_s.get(each.task_id, each.at_s))
        for task_id, effects in self._effects.items():
            runs = sorted((_begun_s(effects, each), each) for each in effects if each.step == "done")
            for (first_s, first), (second_s, second) in pairwise(runs):
                # once its end is stored, nothing may begin a task again; another publish of it may never begin
                redelivered = stored_s.get(task_id, second_s) >= second_s and first.publish_id == second.publish_id
                if (redelivered and self._cut_off(first, first_s, second_s)) == explained:
                    yield Finding("duplicate", task_id, f"{first} and then {second}")

    def _cut_off(self, first: Effect, since_s: float, until_s: float) -> bool:
        """Return whether the process of a run was killed, or its worker or node cut off, before the next run."""
        return (
            any(
                first.pid in fault.victims and fault.injected_s <= until_s and first.at_s <= fault.healed_s
                for fault in self.history.faults
            )
            or any(
                cut.worker == first.worker and since_s - CUT_SLACK_S <= cut.at_s <= until_s + CUT_SLACK_S
                for cut in self.history.cuts
            )
            or any(
                (fault.kind in AWAY or (fault.kind == "pause-worker" and fault.target == first.worker))
                and fault.injected_s <= until_s
                and since_s <= fault.healed_s + AWAY_SLACK_S
                for fault in self.history.faults
            )
        )

    def _queues(self) -> Iterator[Finding]:
        for queue, messages in self.history.depths_messages.items():
            if messages != 0 and queue != topology.PARKED_QUEUE:
                yield Finding("left-over", queue, "no figures" if messages is None else f"{messages} messages")
        dead = {
            post.task_id
            for post in self.accepted
            for read in self._reads[post.task_id or ""]
            if isinstance(read.result, dict) and read.result.get("type") in failures.TYPES
        }
        known = {post.task_id for post in self.accepted}
        parked = set(self.history.parked)
        for task_id in sorted(filter(None, dead - parked)):
            yield Finding("parked", task_id, "has the failure of a dead letter, but is not parked")
        for task_id in sorted(parked & known - dead):
            yield Finding("parked", task_id, "is parked, but does not have the failure of a dead letter")

    def _left_running(self) -> Iterator[Finding]:
        """A killed worker ends no processes: its own ones die with it, and those of tasks with its pod."""
        killed = {pid for fault in self.history.faults if fault.kind in WORKER_KILLED for pid in fault.victims}
        for effect in self.history.effects:
            if effect.started in self.history.running and effect.pid not in killed:
                yield Finding("left-running", effect.task_id, f"{effect.started} of {effect.worker}")

    def _counters(self) -> Iterator[Finding]:
        for life in self.history.lives:
            yield from self._counter(life)
        read = {life.port for life in self.history.lives if life.whole}
        for port in sorted({each.api for each in self.history.tries} - read):
            yield Finding("counters", f"at {port}", "/metrics could not be read at the end")

    def _counter(self, life: Life) -> Iterator[Finding]:
        """Compare the counters of a process with the answers. If it answered after they were read, it may count less.

        Answers to requests for the previous process on the same port may be noted after this process has started.
        """
        tries = [each for each in self.history.tries if each.api == life.port and each.sent_s <= life.read_s]
        most = [each for each in tries if each.answered_s >= life.started_s]
        least = [each for each in most if each.sent_s >= life.started_s]
        floods = [each for each in self.history.floods if each.api == life.port and each.sent_s <= life.read_s]
        unanswered = sum(each.status == 0 and each.sent for each in most)
        unanswered += sum(each.tasks for each in floods if each.status == 0)
        flood_accepted = sum(each.accepted for each in floods if each.answered_s >= life.started_s)
        flood_refused = sum(each.tasks for each in floods if each.status not in {0, 202})
        for name, counted, told, flood in (
            ("accepted", life.accepted + life.repeated, _accepted, flood_accepted),
            ("refused", life.refused, _refused, flood_refused),
        ):
            highest, lowest = sum(map(told, most)) + unanswered + flood, sum(map(told, least))
            if counted > highest or (life.whole and counted < lowest):
                detail = f"/metrics {counted}, by what the clients were told {lowest} to {highest}"
                yield Finding("counters", f"{name} at {life.port} from {life.started_s:.0f}", detail)


def _accepted(each: Try) -> bool:
    return each.status == 202


def _refused(each: Try) -> bool:
    return each.status == 503 and each.kind in {"refused", "results-full", "outcome-unknown"}


def _begun_s(effects: list[Effect], done: Effect) -> float:
    """Return the time at which the run that ended with `done` began."""
    begun = [each.at_s for each in effects if each.step == "begun" and each.pid == done.pid and each.at_s <= done.at_s]
    return max(begun, default=done.at_s)
