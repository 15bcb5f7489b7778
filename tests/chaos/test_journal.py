"""The files of records, as a reader finds them beside writers and after their ends."""

from contextlib import closing
from json import JSONDecodeError
from pathlib import Path

import pytest

from tests.chaos.journal import Crashed, Effect, Journal, Record, Tail, read

FIRST, SECOND = (Effect("a", "1", "p", step, "worker-1", 1, 0, 1.0) for step in ("begun", "done"))


def _append(path: Path, record: Record) -> None:
    with closing(Journal(path)) as journal:
        journal.append(record)


def test_a_record_that_is_half_there_is_read_once_it_is_whole(tmp_path: Path) -> None:
    whole, seen = tmp_path / "whole", tmp_path / "seen"
    for record in (FIRST, SECOND):
        _append(whole, record)
    written = whole.read_bytes()
    for size in range(written.index(b"\n", 1) + 1, len(written)):
        seen.write_bytes(written[:size])
        tail = Tail(seen, from_end=True)
        assert list(tail.new()) == []
        seen.write_bytes(written)
        assert list(tail.new()) == [SECOND]


def test_the_half_that_a_killed_writer_leaves_takes_no_other_record_with_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _append(path, FIRST)
    size = path.stat().st_size
    for kept in range(size):
        with path.open("r+b") as file:
            file.truncate(kept)
        _append(path, SECOND)
        # All but the end of its line is all of it.
        assert list(read(path)) == ([FIRST, SECOND] if kept == size - 1 else [SECOND])
        path.unlink()
        _append(path, FIRST)


def test_half_a_record_of_who_is_not_killed_is_no_half_but_a_defect(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _append(path, Crashed("worker-1", "", 1.0))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    _append(path, FIRST)
    with pytest.raises(JSONDecodeError):
        list(read(path))
