"""Shared memory in which each process of the pool reports its running task to the worker's main process.

    pool process --(task id, start, limits)--> its slot --> main process (apps/worker/watchdog.py)
                 <--(the cancelled run)--

A message for each start would cost both processes a system call and a wake-up. Writing a slot costs less than a
microsecond, and the main process reads slots only when a limit may have passed.
"""

import mmap
import struct
from typing import NamedTuple

# Our ids have 53 bytes (apps/contract/ids.py). Ids of other publishers may be longer; only their start is compared.
_ID_BYTES = 64
_ID_OFFSET = 64
_SLOT_BYTES = _ID_OFFSET + _ID_BYTES
_STARTED_S, _SOFT_AT_S, _HARD_AT_S, _CANCELLED, _RETIRES = range(5)  # doubles from the start of a slot
NEVER_S = float("inf")


class Run(NamedTuple):
    """A running function; times are those of time.monotonic(), which all processes share.

    `started_s` identifies a run within its process.
    """

    task_id: str
    started_s: float
    soft_at_s: float
    hard_at_s: float


class Slot:
    """The memory of one process of the pool."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._values = memory[:_ID_OFFSET].cast("d")

    # Called by the process of the pool.

    def note(self, task_id: str) -> None:
        """Set the id of the task that this process begins next."""
        struct.pack_into(f"{_ID_BYTES}s", self._memory, _ID_OFFSET, task_id.encode())

    def start(self, started_s: float, soft_at_s: float, hard_at_s: float) -> None:
        """The task's function starts."""
        values = self._values
        values[_SOFT_AT_S] = soft_at_s
        values[_HARD_AT_S] = hard_at_s
        values[_STARTED_S] = started_s  # last: the other values are read only if it is set

    def stop(self) -> None:
        """The task's function has ended."""
        self._values[_STARTED_S] = 0.0

    def is_cancelled(self, started_s: float) -> bool:
        """Whether the main process has cancelled this run."""
        return self._values[_CANCELLED] == started_s

    def retire(self) -> None:
        """End the process after its task: the task's descendants were killed, or the process was asked to end."""
        self._values[_RETIRES] = 1.0

    # Called by the main process; `retire` and `retires` by both.

    def clear(self) -> None:
        """Reset the slot for the next process."""
        self._memory[:] = bytes(_SLOT_BYTES)

    def cancel(self, run: Run) -> None:
        """Mark a run as cancelled."""
        self._values[_CANCELLED] = run.started_s

    @property
    def retires(self) -> bool:
        return bool(self._values[_RETIRES])

    @property
    def noted(self) -> str:
        """The id of the last task that the process began, or an empty string."""
        return bytes(self._memory[_ID_OFFSET:]).rstrip(b"\0").decode(errors="replace")

    def read(self) -> Run | None:
        """The running function, or None."""
        values = self._values
        started_s = values[_STARTED_S]
        if not started_s:
            return None
        run = Run(self.noted, started_s, values[_SOFT_AT_S], values[_HARD_AT_S])
        # if another run has started in the meantime, the limits may be those of that run
        return run if values[_STARTED_S] == started_s else None


class Slots:
    """The slots of all processes of the pool, by index. Create them before forking the processes."""

    def __init__(self, count: int) -> None:
        memory = memoryview(mmap.mmap(-1, count * _SLOT_BYTES))
        self._slots = [Slot(memory[start : start + _SLOT_BYTES]) for start in range(0, len(memory), _SLOT_BYTES)]

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]
