"""Append-only files with one record per line as JSON: records of a killed process are kept."""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Try:
    """One request of a post and its answer: status 0 without an answer; then `sent` if it may have arrived."""

    name: str
    key: str | None
    api: int
    sent_s: float
    answered_s: float
    status: int
    kind: str = ""
    reason: str = ""
    task_id: str | None = None
    sent: bool = True


@dataclass(frozen=True)
class Flood:
    """One post of an attacker with `tasks` tasks. Status 0: no answer. `sample`: some of the accepted ids."""

    api: int
    sent_s: float
    answered_s: float
    status: int
    tasks: int
    accepted: int
    sample: tuple[str, ...] = ()


@dataclass(frozen=True)
class Post:
    """The final outcome of a post for its client: "accepted" with an id, "refused" or "unknown"."""

    name: str
    task: str
    key: str | None
    outcome: str
    task_id: str | None
    sent_s: float
    known_s: float


@dataclass(frozen=True)
class Seen:
    """A final state that a client received."""

    task_id: str
    state: str
    result: Any
    at_s: float


# The program that a task starts. The step contains its process id: "started 123".
STARTED = ["sleep", "3600"]
STARTED_STEP = "started "


@dataclass(frozen=True, order=True)
class Effect:
    """A step of a run of a task: "begun", "done" or "started PID". Runs of one publish are redeliveries."""

    name: str
    task_id: str
    publish_id: str
    step: str
    worker: str
    pid: int
    retries: int
    at_s: float

    @property
    def started(self) -> int | None:
        """The id of the process that was started in this step."""
        return int(self.step.removeprefix(STARTED_STEP)) if self.step.startswith(STARTED_STEP) else None


@dataclass(frozen=True)
class Injected:
    """A fault: `healed_s` is the time when the system's port was back, `victims` are the processes that it killed."""

    number: int
    kind: str
    target: str
    injected_s: float
    healed_s: float
    victims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Crashed:
    """A process of this project that ended without a fault."""

    name: str
    last_lines: str
    at_s: float


@dataclass(frozen=True)
class Failed:
    """A fault that could not be injected or undone."""

    kind: str
    error: str
    at_s: float


Record = Try | Flood | Post | Seen | Effect | Injected | Crashed | Failed
_OF_WORKERS = b'{"record":"Effect"'
KINDS = {kind.__name__: kind for kind in (Try, Flood, Post, Seen, Effect, Injected, Crashed, Failed)}


class Journal:
    """An append-only file. Each record is a single write, so that several writers can share the file.

    Linux writes page by page: if a record crosses the end of a page, a reader may see half of it for a moment, and a
    kill leaves this half for good (2 of 100 kills of a process that only writes). So each record begins a new line.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def append(self, record: Record) -> None:
        """Append a record."""
        line = json.dumps({"record": type(record).__name__, **asdict(record)}, separators=(",", ":"))
        written = b"\n" + line.encode() + b"\n"
        if os.write(self._file, written) != len(written):
            raise OSError(errno.ENOSPC, "half a record was written")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tail:
    """Reads the records added since the last read; `from_end` skips the complete records that exist now."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.read_bytes().rfind(b"\n") + 1 if from_end and path.exists() else 0

    def new(self) -> Iterator[Record]:
        """Yield the added records."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if record := _whole(line.strip()):
                    yield record


def read(path: Path) -> Iterator[Record]:
    """Yield all records of a file."""
    return Tail(path).new()


def _whole(line: bytes) -> Record | None:
    """The record of a line; None for an empty line or half an effect: only workers are killed as they write."""
    try:
        return decoded(line)
    except json.JSONDecodeError:
        if not _OF_WORKERS.startswith(line[: len(_OF_WORKERS)]):
            raise
        return None


def decoded(line: bytes) -> Record:
    """Parse a record."""
    fields = json.loads(line)
    kind = KINDS[fields.pop("record")]
    if kind is Injected:
        fields["victims"] = tuple(fields["victims"])
    record: Record = kind(**fields)
    return record
