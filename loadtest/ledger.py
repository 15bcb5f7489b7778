"""The ledger of a run: accepted tasks, their results, and times. The gates are computed from the ledger.

Locust's process appends events to a file, one JSON array per line: time since the start (s), kind, and values:

    accepted  id, task, name, milliseconds from the post to its 202
    finished  id, milliseconds from the 202 to the result, minus the task's duration
    wrong     id, fault of its result
    refused   status of an intended refusal
    second    users, requests and failures so far
    end       failures by request and error, whether Locust had too little CPU
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Writer:
    """Appends events to the file. It is flushed every second, so that a killed process loses at most one second."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def add(self, at_s: float, kind: str, *values: Any) -> None:
        """Append an event that happened `at_s` seconds after the start."""
        self._file.write(json.dumps([round(at_s, 4), kind, *values]) + "\n")

    def flush(self) -> None:
        """Write buffered events to the file."""
        self._file.flush()

    def close(self) -> None:
        """Write buffered events, and close the file."""
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
    """The state after the events so far."""

    tasks: dict[str, Task] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    seconds: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(time in seconds, users, requests so far, failures so far), once per second."""
    failures: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    short_of_cpu: bool = False
    cut: bool = False
    """Whether Locust was ended because it did not end in time."""
    end_s: float = 0.0

    def read(self, lines: Iterable[str]) -> None:
        """Add events. Every line must be complete."""
        for line in lines:
            at_s, kind, *values = json.loads(line)
            self.end_s = max(self.end_s, at_s)
            getattr(self, f"_{kind}")(at_s, *values)

    @property
    def open(self) -> list[Task]:
        """Accepted tasks without a result."""
        return [task for task in self.tasks.values() if task.finished_s is None]

    @property
    def finished(self) -> list[Task]:
        """Tasks whose result a client has received and checked."""
        return [task for task in self.tasks.values() if task.finished_s is not None]

    def settle(self, task_id: str, at_s: float, *, late_ms: float | None = None) -> None:
        """Add a result, at `at_s` seconds after the start. `late_ms` is unknown for results read after the load."""
        self.tasks[task_id].finished_s, self.tasks[task_id].late_ms = at_s, late_ms
        self.end_s = max(self.end_s, at_s)

    def waited_s(self, task: Task, task_s: Mapping[str, float]) -> float:
        """Seconds that a task waited for its result, or until the end of the run, minus its duration `task_s`."""
        ended_s = self.end_s if task.finished_s is None else task.finished_s
        return max(0.0, ended_s - task.accepted_s - task_s[task.task])

    def oldest_waiting(self, task_s: Mapping[str, float], step_s: float = 1.0) -> Iterator[tuple[float, float]]:
        """Every `step_s` seconds: (time, seconds that the oldest task without a result has waited, minus its duration).

        Measured by clients: quorum queues do not report the age of their head, and do not detect a hanging worker.
        """
        # the oldest open task is the one with the earliest due time
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
    """Reads the file while Locust writes to it."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger()
        self._path = path
        self._offset = 0

    def read(self) -> Ledger:
        """Read new events, and return the ledger."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self.ledger.read(whole.decode().splitlines())
        return self.ledger
