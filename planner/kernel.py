"""The inner loop: tasks of a queue start on the slots of changing workers, first come, first started.

Compiled by numba. Slots are in a heap by the time at which they are free; a slot that goes away stays in it until it
comes to the top. A task that a pod cannot finish in its grace period goes back to the queue's head.
Times in seconds of the simulation.
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
HEAP, HEAD, TAIL, SEEN, BACK_HEAD, BACK_TAIL, FREE, SLOTS, DONE, KILLED, WAITS = range(11)
# indices into State.x
WAIT_SUM, WAIT_MAX, LAST_WAITED, LAST_END, WARM_UP, WORK_SUM = range(6)
# a wait's bucket in State.waits: the first is below a millisecond, each next one 1% higher
SHORTEST_S = 0.001
RATIO = 1.01
BUCKETS = 2500


class State(NamedTuple):
    """Arrays that the loop works on; `Workers` owns and grows them."""

    n: Integers
    x: Floats
    heap_at: Floats
    heap_slot: Integers
    # a slot's last task, and whether the slot is gone, holds an uncounted task, or is killed before that ends
    slot_end: Floats
    slot_came: Floats
    slot_s: Floats
    slot_queue: Bytes
    slot_gone: Bytes
    slot_busy: Bytes
    slot_killed: Bytes
    free: Integers
    # tasks that came and did not start yet, from n[HEAD] to n[TAIL]
    came: Floats
    service: Floats
    queue: Bytes
    # tasks that came back, from n[BACK_HEAD] to n[BACK_TAIL]
    back_at: Floats
    back_came: Floats
    back_s: Floats
    back_queue: Bytes
    # by queue
    arrived: Integers
    started: Integers
    waits: Integers


def _sift_down(state: State) -> None:
    at, slot = state.heap_at, state.heap_slot
    size = state.n[HEAP]
    here = 0
    moved_at, moved_slot = at[0], slot[0]
    while True:
        child = 2 * here + 1
        if child >= size:
            break
        if child + 1 < size and at[child + 1] < at[child]:
            child += 1
        if at[child] >= moved_at:
            break
        at[here], slot[here] = at[child], slot[child]
        here = child
    at[here], slot[here] = moved_at, moved_slot


def _count_end(state: State, slot: int) -> None:
    if state.slot_busy[slot]:
        state.slot_busy[slot] = 0
        if not state.slot_killed[slot]:
            state.n[DONE] += 1


def _record_wait(state: State, came: float, start: float) -> None:
    wait = start - came
    if wait > SHORTEST_S and start > state.x[LAST_WAITED]:
        state.x[LAST_WAITED] = start
    if came < state.x[WARM_UP]:
        return
    state.n[WAITS] += 1
    state.x[WAIT_SUM] += wait
    state.x[WAIT_MAX] = max(state.x[WAIT_MAX], wait)
    bucket = 0 if wait < SHORTEST_S else 1 + int(math.log(wait / SHORTEST_S) / math.log(RATIO))
    state.waits[min(bucket, BUCKETS - 1)] += 1


def _start(  # noqa: PLR0913, PLR0917 - the inner loop makes no objects
    state: State, slot: int, start: float, came: float, service: float, queue: int
) -> None:
    end = start + service
    state.slot_end[slot], state.slot_came[slot], state.slot_s[slot] = end, came, service
    state.slot_queue[slot] = queue
    state.slot_busy[slot] = 1
    state.x[LAST_END] = max(state.x[LAST_END], end)
    state.x[WORK_SUM] += service
    state.heap_at[0] = end
    sift_down(state)


def _advance(state: State, until: float) -> None:
    """Start every task that can start before `until`."""
    n = state.n
    while n[HEAP] > 0:
        slot = state.heap_slot[0]
        free_at = state.heap_at[0]
        if free_at >= until:
            break
        if state.slot_gone[slot]:
            count_end(state, slot)
            n[HEAP] -= 1
            state.heap_at[0], state.heap_slot[0] = state.heap_at[n[HEAP]], state.heap_slot[n[HEAP]]
            sift_down(state)
            state.free[n[FREE]] = slot
            n[FREE] += 1
            continue
        came = state.came[n[HEAD]] if n[HEAD] < n[TAIL] else math.inf
        back = state.back_at[n[BACK_HEAD]] if n[BACK_HEAD] < n[BACK_TAIL] else math.inf
        again = back <= max(free_at, came)
        start = max(free_at, back if again else came)
        if start >= until:
            break
        count_end(state, slot)
        if again:
            task = n[BACK_HEAD]
            n[BACK_HEAD] += 1
            came, queue = state.back_came[task], state.back_queue[task]
            begin(state, slot, start, came, state.back_s[task], queue)
        else:
            task = n[HEAD]
            n[HEAD] += 1
            queue = state.queue[task]
            state.started[queue] += 1
            record_wait(state, came, start)
            begin(state, slot, start, came, state.service[task], queue)


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
    """Fill counts = (arrived, waiting, running), each by queue, as of `now`; returns the tasks that are done."""
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
count_end = compiled(_count_end)
record_wait = compiled(_record_wait)
begin = compiled(_start)
advance = compiled(_advance)
add = compiled(_add)
count = compiled(_count)
