"""What each process of the pool runs, in memory that it shares with the worker's main process.

    pool process --(task id, start, limits)--> its slot --> main process (apps/worker/watchdog.py)
                 <--(the run that is cancelled)--

A message for each start would cost both processes a system call and a wake-up; a slot costs less than a microsecond,
and the main process reads it when a limit may have passed.
"""

import mmap
import struct
from typing import NamedTuple

# Ids have 53 bytes (apps/contract/ids.py). An id that somebody else made may be longer, and is compared by its start.
_ID_BYTES = 64
_ID_OFFSET = 64
_SLOT_BYTES = _ID_OFFSET + _ID_BYTES
_STARTED_S, _SOFT_AT_S, _HARD_AT_S, _CANCELLED, _RETIRES = range(5)  # doubles from the start of a slot
NEVER_S = float("inf")


class Run(NamedTuple):
    """A function that runs; times are of time.monotonic(), which all processes share.

    A process starts no two functions at the same time: `started_s` tells its runs apart.
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
        """The task that this process begins next."""
        struct.pack_into(f"{_ID_BYTES}s", self._memory, _ID_OFFSET, task_id.encode())

    def start(self, started_s: float, soft_at_s: float, hard_at_s: float) -> None:
        """The function of the noted task starts."""
        values = self._values
        values[_SOFT_AT_S] = soft_at_s
        values[_HARD_AT_S] = hard_at_s
        values[_STARTED_S] = started_s  # last: without it, the others are not read

    def stop(self) -> None:
        """The function has ended."""
        self._values[_STARTED_S] = 0.0

    def is_cancelled(self, started_s: float) -> bool:
        """Whether the main process has cancelled this run."""
        return self._values[_CANCELLED] == started_s

    def retire(self) -> None:
        """The process ends after its task, for what the task left in it or as it was told to end."""
        self._values[_RETIRES] = 1.0

    # Called by the main process; `retire` and `retires` by both.

    def clear(self) -> None:
        """Reset the slot for the next process."""
        self._memory[:] = bytes(_SLOT_BYTES)

    def cancel(self, run: Run) -> None:
        """Tell the process that this run is cancelled."""
        self._values[_CANCELLED] = run.started_s

    @property
    def retires(self) -> bool:
        return bool(self._values[_RETIRES])

    @property
    def noted(self) -> str:
        """The id of the last task that the process began, or an empty text."""
        return bytes(self._memory[_ID_OFFSET:]).rstrip(b"\0").decode(errors="replace")

    def read(self) -> Run | None:
        """The function that runs, or None."""
        values = self._values
        started_s = values[_STARTED_S]
        if not started_s:
            return None
        run = Run(self.noted, started_s, values[_SOFT_AT_S], values[_HARD_AT_S])
        # another run may have started meanwhile, and these may be its limits
        return run if values[_STARTED_S] == started_s else None


class Slots:
    """One for each process of the pool, by its index. Made before the pool's processes are forked."""

    def __init__(self, count: int) -> None:
        memory = memoryview(mmap.mmap(-1, count * _SLOT_BYTES))
        self._slots = [Slot(memory[start : start + _SLOT_BYTES]) for start in range(0, len(memory), _SLOT_BYTES)]

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]
