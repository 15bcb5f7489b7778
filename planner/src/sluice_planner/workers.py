"""Queues and task slots: owns the arrays of kernel.py and grows them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from sluice_planner import kernel
from sluice_planner.kernel import Floats, Integers

# the initial size of arrays, which double
SIZE = 64
_SLOT: dict[str, type] = {
    "heap_at": np.float64,
    "heap_slot": np.int64,
    "slot_end": np.float64,
    "slot_came": np.float64,
    "slot_s": np.float64,
    "slot_queue": np.uint8,
    "slot_gone": np.uint8,
    "slot_busy": np.uint8,
    "slot_killed": np.uint8,
    "free": np.int64,
}
_TASK: dict[str, type] = {"came": np.float64, "service": np.float64, "queue": np.uint8}
_BACK: dict[str, type] = {"back_at": np.float64, "back_came": np.float64, "back_s": np.float64, "back_queue": np.uint8}


class Tally(NamedTuple):
    """Tasks by queue: arrived, waiting, running; and the total of finished ones."""

    arrived: Integers
    waiting: Integers
    running: Integers
    done: int


class Workers:
    """Tasks of queues on a changing set of slots. Waits are recorded only for tasks that arrive after the warm-up."""

    def __init__(self, queues: int, warm_up_s: float = 0.0) -> None:
        slots: dict[str, Any] = {name: np.zeros(SIZE, kind) for name, kind in _SLOT.items()}
        tasks: dict[str, Any] = {name: np.zeros(SIZE, kind) for name, kind in (_TASK | _BACK).items()}
        self._state = kernel.State(
            n=np.zeros(kernel.WAITS + 1, np.int64),
            x=np.array([0.0, 0.0, 0.0, 0.0, warm_up_s, 0.0]),
            heads=np.zeros(queues, np.int64),
            arrived=np.zeros(queues, np.int64),
            started=np.zeros(queues, np.int64),
            waits=np.zeros(kernel.BUCKETS, np.int64),
            **slots,
            **tasks,
        )

    def load(self, came: Floats, service: Floats, queue: Integers) -> None:
        """Load tasks in order of arrival, all of them later than those loaded before."""
        self._make_room(len(came))
        tail = int(self._state.n[kernel.TAIL])
        until = tail + len(came)
        self._state.came[tail:until] = came
        self._state.service[tail:until] = service
        self._state.queue[tail:until] = queue
        self._state.n[kernel.TAIL] = until

    def advance(self, until_s: float) -> None:
        """Start all tasks that can start before `until_s`."""
        kernel.advance(self._state, until_s)

    def tally(self, now_s: float) -> Tally:
        """The counts at `now_s`, to which `advance` has run."""
        counts = np.empty((3, len(self._state.arrived)), np.int64)
        done = kernel.count(self._state, now_s, counts)
        return Tally(counts[0], counts[1], counts[2], done)

    def add(self, count: int, at_s: float) -> Integers:
        """Add slots that are free from `at_s`."""
        n = self._state.n
        recycled = min(count, int(n[kernel.FREE]))
        n[kernel.FREE] -= recycled
        reused = self._state.free[n[kernel.FREE] : n[kernel.FREE] + recycled]
        first, fresh = int(n[kernel.SLOTS]), count - recycled
        self._grow(_SLOT, first + fresh)
        n[kernel.SLOTS] = first + fresh
        slots = np.concatenate([reused, np.arange(first, first + fresh)])
        for name in ("slot_gone", "slot_busy", "slot_killed"):
            getattr(self._state, name)[slots] = 0
        self._state.slot_end[slots] = 0.0
        kernel.add(self._state, slots, at_s)
        return slots

    def retire(self, slots: Integers, now_s: float, grace_s: float) -> float:
        """Remove slots. Their tasks end, or return to the queue after the grace period. Returns the end of the last."""
        state = self._state
        state.slot_gone[slots] = 1
        running = slots[(state.slot_busy[slots] == 1) & (state.slot_end[slots] > now_s)]
        killed = running[state.slot_end[running] > now_s + grace_s]
        self._send_back(killed[np.argsort(state.slot_came[killed], kind="stable")], now_s + grace_s)
        state.x[kernel.WORK_SUM] -= float((state.slot_end[killed] - now_s - grace_s).sum())
        state.slot_end[killed] = now_s + grace_s
        state.slot_killed[killed] = 1
        return float(max(state.slot_end[running], default=now_s))

    @property
    def killed(self) -> int:
        """The number of tasks that were killed and restarted."""
        return int(self._state.n[kernel.KILLED])

    @property
    def last_waited_s(self) -> float:
        """The last start of a task that had waited."""
        return float(self._state.x[kernel.LAST_WAITED])

    @property
    def last_end_s(self) -> float:
        return float(self._state.x[kernel.LAST_END])

    def work_s(self, now_s: float) -> float:
        """The total time that slots have worked until `now_s`."""
        state, slots = self._state, slice(0, int(self._state.n[kernel.SLOTS]))
        ahead = np.maximum(state.slot_end[slots] - now_s, 0.0)[state.slot_busy[slots] == 1]
        return float(state.x[kernel.WORK_SUM] - ahead.sum())

    @property
    def waits(self) -> "Waits":
        x, n = self._state.x, self._state.n
        return Waits(
            self._state.waits.copy(), int(n[kernel.WAITS]), float(x[kernel.WAIT_SUM]), float(x[kernel.WAIT_MAX])
        )

    def oldest_s(self, now_s: float) -> float:
        """The age of the oldest waiting task."""
        state = self._state
        back = slice(state.n[kernel.BACK_HEAD], state.n[kernel.BACK_TAIL])
        came = [kernel.oldest(state), *state.back_came[back][state.back_at[back] <= now_s]]
        return float(max(0.0, now_s - min(came)))

    def _send_back(self, slots: Integers, at_s: float) -> None:
        state = self._state
        state.n[kernel.KILLED] += len(slots)
        tail = int(state.n[kernel.BACK_TAIL])
        self._grow(_BACK, tail + len(slots))
        state, until = self._state, tail + len(slots)
        state.back_at[tail:until] = at_s
        state.back_came[tail:until] = state.slot_came[slots]
        state.back_s[tail:until] = state.slot_s[slots]
        state.back_queue[tail:until] = state.slot_queue[slots]
        state.n[kernel.BACK_TAIL] = until

    def _make_room(self, count: int) -> None:
        """Move unstarted tasks to the front of the arrays, and grow these for `count` more tasks."""
        state = self._state
        head, tail = int(state.heads.min()), int(state.n[kernel.TAIL])
        # a started task is kept until `count` has counted it as arrived
        kept = min(head, int(state.n[kernel.SEEN]))
        for name in _TASK:
            array = getattr(state, name)
            array[: tail - kept] = array[kept:tail]
        for index in (kernel.TAIL, kernel.SEEN):
            state.n[index] -= kept
        state.heads[:] -= kept
        self._grow(_TASK, tail - kept + count)

    def _grow(self, names: Iterable[str], size: int) -> None:
        grown = {}
        for name in names:
            array = getattr(self._state, name)
            if len(array) < size:
                larger = np.zeros(max(size, 2 * len(array)), array.dtype)
                larger[: len(array)] = array
                grown[name] = larger
        self._state = self._state._replace(**grown)


class Waits(NamedTuple):
    """The waiting times until the first start, in buckets that are 1% wide."""

    buckets: Integers
    tasks: int
    sum_s: float
    max_s: float

    @property
    def mean_s(self) -> float:
        return self.sum_s / self.tasks if self.tasks else 0.0

    def percentile_s(self, percent: float) -> float:
        """The wait that so many percent of the tasks did not exceed, within 1%."""
        if not self.tasks:
            return 0.0
        rank = min(self.tasks - 1, int(self.tasks * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self.buckets), rank + 1))
        if bucket == 0:
            return 0.0
        return float(min(self.max_s, kernel.SHORTEST_S * kernel.RATIO**bucket))
