"""The run's own ledger: what was accepted, what came of it, and when. Everything that is judged is computed from it.

Locust's process appends events to a file, one JSON array a line: time since the start (s), kind, and

    accepted  id, task, name, milliseconds from the post to its 202
    finished  id, milliseconds from the 202 to the result in hand, less what the task takes
    wrong     id, what is wrong with its result
    refused   status: one that the shape intends
    second    users, requests and failures so far
    end       failures by what failed, whether Locust had too little CPU
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Writer:
    """Appends to the file; what a killed process loses is a second at most."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def add(self, at_s: float, kind: str, *values: Any) -> None:
        """Note an event."""
        self._file.write(json.dumps([round(at_s, 4), kind, *values]) + "\n")

    def flush(self) -> None:
        """Let the reader see what was noted."""
        self._file.flush()

    def close(self) -> None:
        """No more will come."""
        self._file.close()


@dataclass
class Task:
    """An accepted task."""

    id: str
    task: str
    name: str
    accepted_s: float
    accept_ms: float
    finished_s: float | None = None
    late_ms: float | None = None


@dataclass
class Ledger:
    """What the events say, so far."""

    tasks: dict[str, Task] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    seconds: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Time, users, requests, failures."""
    failures: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    short_of_cpu: bool = False
    cut: bool = False
    """Locust had not ended by itself when its time was over."""
    end_s: float = 0.0

    def read(self, lines: Iterable[str]) -> None:
        """Add events; a line that is not yet whole must not be among them."""
        for line in lines:
            at_s, kind, *values = json.loads(line)
            self.end_s = max(self.end_s, at_s)
            getattr(self, f"_{kind}")(at_s, *values)

    @property
    def open(self) -> list[Task]:
        """Accepted, and no result yet."""
        return [task for task in self.tasks.values() if task.finished_s is None]

    @property
    def finished(self) -> list[Task]:
        """Those whose result a client has, and has checked."""
        return [task for task in self.tasks.values() if task.finished_s is not None]

    def settle(self, task_id: str, at_s: float, *, late_ms: float | None = None) -> None:
        """A result that was asked for after the load."""
        self.tasks[task_id].finished_s, self.tasks[task_id].late_ms = at_s, late_ms
        self.end_s = max(self.end_s, at_s)

    def waited_s(self, task: Task, task_s: Mapping[str, float]) -> float:
        """How long a task waited for its result, or waits at the end of the run, beside the time it takes itself."""
        ended_s = self.end_s if task.finished_s is None else task.finished_s
        return max(0.0, ended_s - task.accepted_s - task_s[task.task])

    def oldest_waiting(self, task_s: Mapping[str, float], step_s: float = 1.0) -> Iterator[tuple[float, float]]:
        """Each second, how long the oldest task without a result has waited, beside the time it takes itself.

        As clients know it: quorum queues do not tell the age of their head, and would not know of a worker that hangs.
        """
        # of all that are open at a time the oldest counts: walk along the due times, the earliest first
        due = sorted((task.accepted_s + task_s[task.task], task.finished_s or math.inf) for task in self.tasks.values())
        at_s, first = 0.0, 0
        while at_s <= self.end_s:
            while first < len(due) and due[first][1] <= at_s:
                first += 1
            yield at_s, max(0.0, at_s - due[first][0]) if first < len(due) else 0.0
            at_s += step_s

    def _accepted(self, at_s: float, task_id: str, task: str, name: str, ms: float) -> None:
        if task_id in self.tasks:  # a new task must have a new id
            self.wrong.append(f"{task_id} was given to two tasks")
        self.tasks[task_id] = Task(task_id, task, name, at_s, ms)

    def _finished(self, at_s: float, task_id: str, late_ms: float) -> None:
        self.settle(task_id, at_s, late_ms=late_ms)

    def _wrong(self, _: float, task_id: str, what: str) -> None:
        self.wrong.append(f"{task_id}: {what}")

    def _refused(self, _: float, status: int) -> None:
        self.refused[status] += 1

    def _second(self, at_s: float, users: int, requests: int, failures: int) -> None:
        self.seconds.append((at_s, users, requests, failures))

    def _end(self, _: float, failures: dict[str, int], short_of_cpu: bool) -> None:  # noqa: FBT001 - an event's value
        self.failures, self.short_of_cpu, self.ended = failures, short_of_cpu, True


class Follower:
    """Reads the file while it is written."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger()
        self._path = path
        self._offset = 0

    def read(self) -> Ledger:
        """The ledger as it is now."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self.ledger.read(whole.decode().splitlines())
        return self.ledger
