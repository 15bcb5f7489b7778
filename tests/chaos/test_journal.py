"""The files of records, as a reader finds them beside writers and after their ends."""

from contextlib import closing
from pathlib import Path

from tests.chaos.journal import Crashed, Journal, Tail, read

FIRST, SECOND = Crashed("worker-1", "", 1.0), Crashed("worker-2", "", 2.0)


def _append(path: Path, record: Crashed) -> None:
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
