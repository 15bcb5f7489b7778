"""The inner loop, compiled by numba: starts tasks on the slots of a changing set of workers, each queue in FIFO order.

A free slot takes tasks from the queues in turn, and never holds a second task. Slots are in a heap, ordered by the time
at which they become free; a removed slot stays in the heap until it is at the top. A task that a pod cannot finish in
its grace period returns to the head of its queue. Times are in seconds since the start of the simulation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# indices into State.n
HEAP, TAIL, SEEN, BACK_HEAD, BACK_TAIL, FREE, SLOTS, DONE, KILLED, WAITS = range(10)
# indices into State.x
WAIT_SUM, WAIT_MAX, LAST_WAITED, LAST_END, WARM_UP, WORK_SUM = range(6)
# the buckets of State.waits: the first is for waits below a millisecond, each bound is 1% above the one before
SHORTEST_S = 0.001
RATIO = 1.01
PER_LOG = 1 / math.log(RATIO)
BUCKETS = 2500


class State(NamedTuple):
    """The arrays of the loop; `Workers` owns and grows them."""

    n: Integers
    x: Floats
    heap_at: Floats
    heap_slot: Integers
    # each slot's last task; whether the slot is removed, has a task that is not counted as done, or is killed early
    slot_end: Floats
    slot_came: Floats
    slot_s: Floats
    slot_queue: Bytes
    slot_gone: Bytes
    slot_busy: Bytes
    slot_killed: Bytes
    free: Integers
    # tasks in order of arrival, up to n[TAIL]; the unstarted ones of a queue are at heads[queue] or later
    came: Floats
    service: Floats
    queue: Bytes
    # returned tasks, from n[BACK_HEAD] to n[BACK_TAIL]
    back_at: Floats
    back_came: Floats
    back_s: Floats
    back_queue: Bytes
    # by queue
    heads: Integers
    arrived: Integers
    started: Integers
    waits: Integers


def _sift_down(at: Floats, slot: Integers, size: int) -> None:
    here = 0
    moved_at, moved_slot = at[0], slot[0]
    child = 1
    while child < size:
        if child + 1 < size and at[child + 1] < at[child]:
            child += 1
        if at[child] >= moved_at:
            break
        at[here], slot[here] = at[child], slot[child]
        here = child
        child = 2 * here + 1
    at[here], slot[here] = moved_at, moved_slot


def _record_wait(n: Integers, x: Floats, waits: Integers, came: float, start: float) -> None:
    wait = start - came
    if wait > SHORTEST_S and start > x[LAST_WAITED]:
        x[LAST_WAITED] = start
    if came >= x[WARM_UP]:
        n[WAITS] += 1
        x[WAIT_SUM] += wait
        x[WAIT_MAX] = max(x[WAIT_MAX], wait)
        bucket = 0 if wait < SHORTEST_S else 1 + int(math.log(wait / SHORTEST_S) * PER_LOG)
        waits[min(bucket, BUCKETS - 1)] += 1


def _first(state: State, queue: int) -> int:
    """The first unstarted task of a queue; n[TAIL] if there is none."""
    head, tail = state.heads[queue], state.n[TAIL]
    while head < tail and state.queue[head] != queue:
        head += 1
    state.heads[queue] = head
    return int(head)


def _next_task(state: State, slot: int, free_at: float) -> int:
    """The task that a slot takes: from the next queue in turn with a task at that time, else the first to arrive."""
    queues, found = len(state.heads), state.n[TAIL]
    came = math.inf
    for turn in range(queues):
        head = first(state, (state.slot_queue[slot] + 1 + turn) % queues)
        if head < state.n[TAIL] and state.came[head] < came:
            found, came = head, state.came[head]
            if came <= free_at:
                break
    return int(found)


def _oldest(state: State) -> float:
    """The arrival time of the oldest unstarted task."""
    came = math.inf
    for queue in range(len(state.heads)):
        head = first(state, queue)
        if head < state.n[TAIL]:
            came = min(came, state.came[head])
    return came


def _advance(state: State, until: float) -> None:
    """Start every task that can start before `until`."""
    n, x, at, slots = state.n, state.x, state.heap_at, state.heap_slot
    busy, gone, killed = state.slot_busy, state.slot_gone, state.slot_killed
    tail, back, backs = n[TAIL], n[BACK_HEAD], n[BACK_TAIL]
    while n[HEAP] > 0 and at[0] < until:
        slot, free_at = slots[0], at[0]
        head = next_task(state, slot, free_at)
        came = state.came[head] if head < tail else math.inf
        came_back = state.back_at[back] if back < backs else math.inf
        again = came_back <= max(free_at, came)
        start = max(free_at, came_back if again else came)
        if start >= until and not gone[slot]:
            break
        n[DONE] += busy[slot] and not killed[slot]
        busy[slot] = 0
        if gone[slot]:
            n[HEAP] -= 1
            at[0], slots[0] = at[n[HEAP]], slots[n[HEAP]]
            sift_down(at, slots, n[HEAP])
            state.free[n[FREE]] = slot
            n[FREE] += 1
            continue
        if again:
            came, service, queue = state.back_came[back], state.back_s[back], state.back_queue[back]
            back += 1
        else:
            service, queue = state.service[head], state.queue[head]
            state.heads[queue] = head + 1
            state.started[queue] += 1
            record_wait(n, x, state.waits, came, start)
        end = start + service
        state.slot_end[slot], state.slot_came[slot], state.slot_s[slot] = end, came, service
        state.slot_queue[slot] = queue
        busy[slot] = 1
        x[LAST_END] = max(x[LAST_END], end)
        x[WORK_SUM] += service
        at[0] = end
        sift_down(at, slots, n[HEAP])
    n[BACK_HEAD] = back


def _add(state: State, slots: Integers, at: float) -> None:
    """Put free slots into the heap."""
    for slot in slots:
        here = state.n[HEAP]
        state.n[HEAP] += 1
        while here > 0 and state.heap_at[(here - 1) // 2] > at:
            parent = (here - 1) // 2
            state.heap_at[here], state.heap_slot[here] = state.heap_at[parent], state.heap_slot[parent]
            here = parent
        state.heap_at[here], state.heap_slot[here] = at, slot


def _count(state: State, now: float, counts: Integers) -> int:
    """Fill counts = (arrived, waiting, running), each by queue, as of `now`; return the number of finished tasks."""
    n = state.n
    while n[SEEN] < n[TAIL] and state.came[n[SEEN]] <= now:
        state.arrived[state.queue[n[SEEN]]] += 1
        n[SEEN] += 1
    counts[0] = state.arrived
    counts[1] = state.arrived - state.started
    counts[2] = 0
    for task in range(n[BACK_HEAD], n[BACK_TAIL]):
        if state.back_at[task] <= now:
            counts[1, state.back_queue[task]] += 1
    done = n[DONE]
    for slot in range(n[SLOTS]):
        if state.slot_busy[slot]:
            if state.slot_end[slot] > now:
                counts[2, state.slot_queue[slot]] += 1
            elif not state.slot_killed[slot]:
                done += 1
    return int(done)


compiled: Callable[..., Any] = njit(cache=True)
sift_down = compiled(_sift_down)
record_wait = compiled(_record_wait)
first = compiled(_first)
next_task = compiled(_next_task)
oldest = compiled(_oldest)
advance = compiled(_advance)
add = compiled(_add)
count = compiled(_count)
