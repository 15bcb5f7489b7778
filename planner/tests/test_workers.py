"""Compares the compiled loop with a simple one, and checks invariants of queues."""

import heapq
import math
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_planner.workers import Tally, Workers

# compilation takes longer than the deadline of an example
PROPERTY = settings(deadline=None, max_examples=200)

seconds = st.integers(0, 400).map(lambda quarter: quarter / 4)
tasks = st.lists(st.tuples(seconds, st.integers(1, 120).map(lambda quarter: quarter / 4)), max_size=60)
# changes: (time, number of new slots, or removal of the oldest group of slots)
changes = st.lists(st.tuples(seconds, st.integers(0, 4)), min_size=1, max_size=8)


@dataclass
class Plain:
    """A simple FIFO queue on a changing set of slots: readable, but slow."""

    grace_s: float
    queue: list[tuple[float, float, float]] = field(default_factory=list)  # (earliest start, arrival, service time)
    starts: list[tuple[float, float]] = field(default_factory=list)  # (arrival, start)
    free: list[tuple[float, int]] = field(default_factory=list)
    running: dict[int, tuple[float, float, float]] = field(default_factory=dict)  # (end, arrival, service time)
    done: list[float] = field(default_factory=list)
    slots: int = 0

    def advance(self, until_s: float) -> None:
        while self.free and self.queue:
            free_s, slot = self.free[0]
            ready = [task for task in self.queue if task[0] <= free_s]
            # returned tasks are first; they can start only after their return
            ready.sort(key=lambda task: (task[0] == task[1], task[0]))
            task = ready[0] if ready else min(self.queue, key=lambda task: (task[0], task[0] == task[1]))
            start_s = max(free_s, task[0])
            if start_s >= until_s:
                return
            self.queue.remove(task)
            heapq.heapreplace(self.free, (start_s + task[2], slot))
            if task[0] == task[1]:
                self.starts.append((task[1], start_s))
            if slot in self.running:
                self.done.append(self.running[slot][0])
            self.running[slot] = (start_s + task[2], task[1], task[2])

    def add(self, count: int, at_s: float) -> list[int]:
        slots = list(range(self.slots, self.slots + count))
        self.slots += count
        for slot in slots:
            heapq.heappush(self.free, (at_s, slot))
        return slots

    def retire(self, slots: list[int], now_s: float) -> None:
        self.free = [entry for entry in self.free if entry[1] not in slots]
        heapq.heapify(self.free)
        for slot in [slot for slot in slots if slot in self.running]:
            end_s, came_s, service_s = self.running.pop(slot)
            if end_s > now_s + self.grace_s:
                self.queue.append((now_s + self.grace_s, came_s, service_s))
            else:
                self.done.append(end_s)


def loaded(work: list[tuple[float, float]]) -> Workers:
    workers = Workers(1)
    came, service = (np.array(column, float) for column in zip(*work, strict=True)) if work else (np.empty(0),) * 2
    workers.load(came, service, np.zeros(len(work), np.int64))
    return workers


def uneven(work: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Shift times by small different amounts, because the order of two slots that get free together is undefined."""
    return [(came + each * 0.00137, service + each * 0.00071) for each, (came, service) in enumerate(work)]


@PROPERTY
@given(tasks, changes)
def test_starts_equal_those_of_the_simple_queue(work: list[tuple[float, float]], plan: list[tuple[float, int]]) -> None:
    work = uneven(sorted(work, key=lambda task: task[0]))
    workers, plain = loaded(work), Plain(10.0, [(came, came, service) for came, service in work])
    groups = [(workers.add(1, 0.0), plain.add(1, 0.0))]
    for at_s, count in sorted(plan):
        workers.advance(at_s)
        plain.advance(at_s)
        if count:
            ready_s = at_s + 1 + len(groups) * 0.000311
            groups.append((workers.add(count, ready_s), plain.add(count, ready_s)))
        elif len(groups) > 1:
            theirs, ours = groups.pop(0)
            workers.retire(theirs, at_s, 10.0)
            plain.retire(ours, at_s)
    workers.advance(1e6)
    plain.advance(1e6)
    waits = [start - came for came, start in plain.starts]
    assert workers.waits.tasks == len(work)
    assert workers.waits.sum_s == pytest.approx(sum(waits))
    assert workers.waits.max_s == pytest.approx(max(waits, default=0.0))
    ended = [*plain.done, *(end_s for end_s, *_ in plain.running.values())]
    assert workers.tally(1e6).done == len(ended)


@PROPERTY
@given(tasks, changes, st.lists(seconds, max_size=10))
def test_no_task_is_lost(work: list[tuple[float, float]], plan: list[tuple[float, int]], looks: list[float]) -> None:
    """At every time, arrived = waiting + running + done."""
    work = sorted(work, key=lambda task: task[0])
    workers = loaded(work)
    slots = [workers.add(2, 0.0)]
    for at_s, count in sorted([*plan, *((at_s, -1) for at_s in looks)]):
        workers.advance(at_s)
        if count > 0:
            slots.append(workers.add(count, at_s))
        elif count == 0 and slots:
            workers.retire(slots.pop(), at_s, 3.0)
        tally: Tally = workers.tally(at_s)
        assert tally.arrived[0] == sum(came <= at_s for came, _ in work)
        assert tally.arrived[0] == tally.waiting[0] + tally.running[0] + tally.done


@PROPERTY
@given(tasks, st.integers(1, 5), st.integers(0, 5))
def test_more_servers_never_finish_later(work: list[tuple[float, float]], servers: int, more: int) -> None:
    work = sorted(work, key=lambda task: task[0])
    ends = []
    for count in (servers, servers + more):
        workers = loaded(work)
        workers.add(count, 0.0)
        workers.advance(math.inf)
        ends.append(workers.last_end_s)
    assert ends[1] <= ends[0]


@PROPERTY
@given(tasks, st.integers(1, 3))
def test_first_in_first_started(work: list[tuple[float, float]], servers: int) -> None:
    """The oldest waiting task is never younger than one that has started."""
    work = sorted(work, key=lambda task: task[0])
    workers = loaded(work)
    workers.add(servers, 0.0)
    for at_s in range(0, 200, 7):
        workers.advance(float(at_s))
        waiting = int(workers.tally(float(at_s)).waiting[0])
        arrived = [came for came, _ in work if came <= at_s]
        expected = at_s - arrived[len(arrived) - waiting] if waiting else 0.0
        assert workers.oldest_s(float(at_s)) == pytest.approx(expected)


def in_turn(work: list[tuple[float, float, int]], queues: int) -> list[float]:
    """The starts on one slot that takes from the queues in turn, in simple code."""
    starts, free_s, last = [], 0.0, 0
    waiting = sorted(work, key=lambda task: task[0])
    while waiting:
        now_s = max(free_s, waiting[0][0])
        came = [task for task in waiting if task[0] <= now_s]
        task = min(came, key=lambda task: ((task[2] - last - 1) % queues, task[0]))
        waiting.remove(task)
        starts.append(now_s - task[0])
        free_s, last = now_s + task[1], task[2]
    return starts


@PROPERTY
@given(tasks, st.integers(1, 3), st.randoms(use_true_random=False), st.integers(1, 20))
def test_slot_takes_from_the_queues_in_turn(
    work: list[tuple[float, float]], queues: int, chance: random.Random, block: int
) -> None:
    """No queue waits until the other is empty, whether tasks are loaded in blocks or all at once."""
    own = [(*task, chance.randrange(queues)) for task in uneven(sorted(work, key=lambda task: task[0]))]
    workers = Workers(queues)
    workers.add(1, 0.0)
    for start in range(0, len(own), block):
        came, service, queue = (np.array(column) for column in zip(*own[start : start + block], strict=True))
        workers.load(came.astype(float), service.astype(float), queue.astype(np.int64))
        # as in the simulation: nothing starts after the last loaded arrival, because more tasks may be loaded
        workers.advance(float(came[-1]))
    workers.advance(math.inf)
    waits = in_turn(own, queues)
    assert workers.waits.tasks == len(own)
    assert workers.waits.sum_s == pytest.approx(sum(waits))
    assert workers.waits.max_s == pytest.approx(max(waits, default=0.0), abs=1e-9)


def test_short_queue_does_not_wait_for_the_long_one() -> None:
    """Ten tasks of one queue arrive first, and tasks of the other queue are started in between."""
    workers = Workers(2)
    workers.load(np.array([0.0] * 10 + [1.0] * 3), np.full(13, 2.0), np.array([0] * 10 + [1] * 3))
    workers.add(1, 0.0)
    workers.advance(12.5)
    assert workers.tally(12.5).waiting.tolist() == [6, 0]
    assert workers.oldest_s(12.5) == 12.5


def test_room_is_made_while_tasks_wait() -> None:
    """Loading tasks in blocks has the same result as loading all at once."""
    generator = np.random.default_rng(5)
    came, service = np.cumsum(generator.exponential(1, 5000)), generator.exponential(2.9, 5000)
    whole, parts = Workers(1), Workers(1)
    for workers in (whole, parts):
        workers.add(3, 0.0)
    whole.load(came, service, np.zeros(5000, np.int64))
    for start in range(0, 5000, 100):
        block = slice(start, start + 100)
        parts.load(came[block], service[block], np.zeros(100, np.int64))
        parts.advance(float(came[block][-1]))
        if start % 300 == 0:  # tasks that no tally has counted in the meantime are counted later
            parts.tally(float(came[block][-1]))
    for workers in (whole, parts):
        workers.advance(math.inf)
    assert parts.waits.sum_s == pytest.approx(whole.waits.sum_s)
    assert (parts.waits.buckets == whole.waits.buckets).all()
    assert parts.tally(1e9).arrived[0] == 5000


def test_returned_tasks_start_first() -> None:
    """A returned task starts before tasks that arrived later, although it returns after their arrival."""
    workers = loaded([(0.0, 10.0), (1.0, 20.0), (2.0, 30.0)])
    slots = workers.add(1, 0.0)
    workers.advance(1.0)
    workers.retire(slots, 1.0, 4.0)
    workers.add(1, 6.0)
    workers.advance(7.0)
    # the task restarted at 6 s, and ends at 16 s
    tally = workers.tally(7.0)
    assert (workers.killed, tally.waiting[0], tally.running[0]) == (1, 2, 1)
    assert workers.last_end_s == 16.0
    assert workers.oldest_s(7.0) == 6.0


def test_percentiles_are_within_one_percent() -> None:
    workers = Workers(1)
    workers.add(1, 0.0)
    # all arrive at once and take a second each, so the n-th task waits n seconds
    workers.load(np.zeros(1000), np.ones(1000), np.zeros(1000, np.int64))
    workers.advance(math.inf)
    for percent in (50, 90, 95, 99):
        assert workers.waits.percentile_s(percent) == pytest.approx(percent * 10, rel=0.011)
    assert [workers.waits.mean_s, workers.waits.max_s] == pytest.approx([499.5, 999])
