"""The gates: conditions that a run must meet. Each has a measured and a required value."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.ledger import Ledger, Task
from loadtest.shapes import SLACK_S, Limits, Shape

# A share of fewer tasks is not meaningful.
LEAST_TASKS = 20
# Share of the accepted tasks that must have a result within the shape's limit. Other gates check every task.
KEPT_UP = 0.98
# If the median result is earlier by more than this, the tasks do not take the time that the shape says.
EARLY_MS = 100
# The p95 of an undisturbed stub is 1 to 2 ms, and 30 times that is ordinary noise of a machine.
LEAST_FLOOR_MS = 5.0


@dataclass(frozen=True)
class Gate:
    """The result of one gate. `found` and `wanted` are texts for a person."""

    name: str
    held: bool
    found: str
    wanted: str


@dataclass(frozen=True)
class Seen:
    """The system's own counters: their differences between the end and the start of the run."""

    accepted: Mapping[str, int]
    """Task -> sluice_accepted_total, the sum over all API processes."""
    queues: Mapping[str, int]
    """Queue -> messages at the end of the run; only new messages for queues of dead letters."""
    succeeded: int | None = None
    """sluice_task_results_total, the sum over all workers; None if workers are scaled, which loses their counters."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run."""

    gates: tuple[Gate, ...]
    void: tuple[str, ...] = field(default=())
    """The reasons why the run is void; empty if it is valid."""

    @property
    def word(self) -> str:
        """`void`, `held` or `failed`."""
        if self.void:
            return "void"
        return "held" if all(gate.held for gate in self.gates) else "failed"

    @property
    def exit_status(self) -> int:
        """0 only if every gate held, 1 if one did not, 3 for a void run."""
        return {"held": 0, "failed": 1, "void": 3}[self.word]


def judged(shape: Shape, ledger: Ledger, floor: Ledger, seen: Seen) -> Verdict:
    """Evaluate all gates of the shape. `floor` is the ledger of the stub run."""
    gates = [_lost(ledger), _agrees(ledger, seen), _drained(seen), _failures(ledger), _checked(ledger)]
    if shape.limits:
        gates += _within(shape, shape.limits, ledger, floor)
    return Verdict(tuple(gates), tuple(_void(shape, ledger, floor)))


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile by nearest rank; `share` is from 0 to 1. NaN if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def kept_up(shape: Shape, ledger: Ledger, behind_s: float) -> float:
    """The lowest ratio of results until t + lag to tasks accepted until t, for any t at which a task was accepted.

    The lag is the longest task's duration plus `behind_s` seconds. Ratios of fewer than LEAST_TASKS tasks do not count.
    """
    accepted = sorted(task.accepted_s for task in ledger.tasks.values())
    finished = sorted(task.finished_s for task in ledger.finished if task.finished_s is not None)
    lag_s = shape.longest_task_s + behind_s
    least, done = 1.0, 0
    for number, at_s in enumerate(accepted, start=1):
        while done < len(finished) and finished[done] <= at_s + lag_s:
            done += 1
        if number >= LEAST_TASKS and at_s + lag_s <= ledger.end_s:
            least = min(least, done / number)
    return least


def _lost(ledger: Ledger) -> Gate:
    accepted, finished = (_by_task(tasks) for tasks in (ledger.tasks.values(), ledger.finished))
    found = ", ".join(
        f"{task}: {count} accepted, {finished[task]} finished" for task, count in sorted(accepted.items())
    )
    lost = ledger.open
    example = f"; {len(lost)} without a result, the first {lost[0].id}" if lost else ""
    return Gate(
        "nothing lost", bool(accepted) and not lost, (found or "nothing accepted") + example, "accepted = finished"
    )


def _agrees(ledger: Ledger, seen: Seen) -> Gate:
    accepted = _by_task(ledger.tasks.values())
    counted = Counter({task: count for task, count in seen.accepted.items() if count})
    held = accepted == counted
    found = f"accepted by /metrics {sum(counted.values())}, by clients {sum(accepted.values())}"
    if seen.succeeded is not None:
        held &= seen.succeeded == len(ledger.finished)
        found += f"; ended by /metrics {seen.succeeded}, by clients {len(ledger.finished)}"
    return Gate("ledger and /metrics agree", held, found, "the same numbers")


def _drained(seen: Seen) -> Gate:
    left = {queue: count for queue, count in seen.queues.items() if count}
    found = ", ".join(f"{queue}: {count}" for queue, count in left.items()) or f"{len(seen.queues)} queues empty"
    return Gate("queues drained", bool(seen.queues) and not left, found, "nothing left in any queue, no dead letter")


def _failures(ledger: Ledger) -> Gate:
    count = sum(ledger.failures.values())
    worst = max(ledger.failures, key=lambda what: ledger.failures[what], default="")
    requests = ledger.seconds[-1][2] if ledger.seconds else 0
    intended = f", {sum(ledger.refused.values())} intended refusals" if ledger.refused else ""
    found = f"{count} of {requests} requests{intended}" + (f"; most often {worst}" if worst else "")
    return Gate("no failures", requests > 0 and not count, found, "0")


def _checked(ledger: Ledger) -> Gate:
    checked = len(ledger.finished)
    found = f"{checked} checked, {len(ledger.wrong)} wrong" + (f"; the first {ledger.wrong[0]}" if ledger.wrong else "")
    return Gate(
        "every result right", checked > 0 and not ledger.wrong, found, "id, state and name are those of the task"
    )


def _within(shape: Shape, limits: Limits, ledger: Ledger, floor: Ledger) -> Iterator[Gate]:
    share = kept_up(shape, ledger, limits.behind_s)
    yield Gate(
        "results keep up",
        share >= KEPT_UP,
        f"{share:.1%} of what was accepted had its result in time, at the worst moment",
        f"{KEPT_UP:.0%} when the task's time and {limits.behind_s:g} s are over",
    )
    oldest_s = max((ledger.waited_s(task, shape.task_s) for task in ledger.tasks.values()), default=0.0)
    yield Gate(
        "oldest waiting task",
        oldest_s <= limits.oldest_waiting_s,
        f"{oldest_s:.1f} s",
        f"{limits.oldest_waiting_s:g} s",
    )
    yield _ratio("accepting, p95", limits.accept_p95_ratio, accept_ms(ledger), accept_ms(floor))
    yield _ratio("result after its task's time, p95", limits.result_p95_ratio, late_ms(ledger), late_ms(floor))


def accept_ms(ledger: Ledger) -> list[float]:
    """Milliseconds from each post to its 202."""
    return [task.accept_ms for task in ledger.tasks.values()]


def late_ms(ledger: Ledger) -> list[float]:
    """Milliseconds from each 202 to the result, minus the task's duration."""
    return [task.late_ms for task in ledger.finished if task.late_ms is not None]


def _ratio(name: str, limit: float, ours: Sequence[float], stub: Sequence[float]) -> Gate:
    p95, measured = percentile(ours, 0.95), percentile(stub, 0.95)
    ratio = p95 / max(measured, LEAST_FLOOR_MS)
    counted = f", counted as {LEAST_FLOOR_MS:g}" if measured < LEAST_FLOOR_MS else ""
    found = f"{ratio:.1f} times the stub's ({p95:.1f} and {measured:.1f} ms{counted})"
    return Gate(name, ratio <= limit, found, f"{limit:g} times")


def _void(shape: Shape, ledger: Ledger, floor: Ledger) -> Iterator[str]:
    for name, each in (("the run", ledger), ("the stub run", floor)):
        if not each.ended:
            yield f"Locust ended before {name} was over"
        if each.short_of_cpu:
            yield f"Locust warned that it had too little CPU in {name}: its times are not the system's"
        yield from _too_little(name, shape, each)
    if floor.open or floor.wrong or floor.failures:
        yield "the stub run itself failed, so there is nothing to compare with"
    for task in shape.task_s:
        late = [one.late_ms for one in ledger.finished if one.task == task and one.late_ms is not None]
        if (p50 := percentile(late, 0.5)) < -EARLY_MS:
            yield f"{task} takes {-p50:.0f} ms less than its inputs say: the system does not run loadtest/tasks"


def _too_little(name: str, shape: Shape, ledger: Ledger) -> Iterator[str]:
    """The reasons why the load was less than the shape requires."""
    wanted = max((users for *_, users in shape.holds()), default=0)
    most = max((second[1] for second in ledger.seconds), default=0)
    if most < wanted:
        yield f"only {most} of the shape's {wanted} users were there in {name}"
    length_s = ledger.seconds[-1][0] - ledger.seconds[0][0] if ledger.seconds else 0.0
    if ledger.cut:
        yield f"Locust did not end in time after {name}, and was ended"
    elif length_s < shape.length_s - SLACK_S:
        yield f"{name} was cut short: {length_s:.0f} of {shape.length_s:.0f} s"


def _by_task(tasks: Iterable[Task]) -> Counter[str]:
    return Counter(task.task for task in tasks)
