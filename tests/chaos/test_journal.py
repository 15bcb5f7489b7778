"""Journals can be read while others write to them and after their writers were killed."""

from contextlib import closing
from json import JSONDecodeError
from pathlib import Path

import pytest

from tests.chaos.journal import Crashed, Effect, Journal, Record, Tail, read

FIRST, SECOND = (Effect("a", "1", "p", step, "worker-1", 1, 0, 1.0) for step in ("begun", "done"))


def _append(path: Path, record: Record) -> None:
    with closing(Journal(path)) as journal:
        journal.append(record)


def test_incomplete_record_is_read_once_it_is_complete(tmp_path: Path) -> None:
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


def test_incomplete_record_of_a_killed_writer_does_not_damage_later_records(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _append(path, FIRST)
    size = path.stat().st_size
    for kept in range(size):
        with path.open("r+b") as file:
            file.truncate(kept)
        _append(path, SECOND)
        # only the line break at the end is missing: the record is complete
        assert list(read(path)) == ([FIRST, SECOND] if kept == size - 1 else [SECOND])
        path.unlink()
        _append(path, FIRST)


def test_incomplete_record_of_any_other_writer_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _append(path, Crashed("worker-1", "", 1.0))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    _append(path, FIRST)
    with pytest.raises(JSONDecodeError):
        list(read(path))
