"""What `make load` removes before it begins."""

from pathlib import Path

import pytest

from loadtest import folder
from ops.command import Unusable


def test_what_an_earlier_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("old")
    (tmp_path / "system" / "redis").mkdir(parents=True)
    with folder.emptied(tmp_path):
        assert [each.name for each in tmp_path.iterdir()] == [folder.LOCK]


def test_folder_that_holds_anything_else_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("run.jsonl", "thesis.txt"):
        (tmp_path / name).write_text("kept")
    with pytest.raises(Unusable, match=r"contains 'thesis\.txt'"), folder.emptied(tmp_path):
        pass
    assert {"run.jsonl", "thesis.txt"} <= {each.name for each in tmp_path.iterdir()}


def test_folder_of_a_run_that_goes_on_is_left_as_it_is(tmp_path: Path) -> None:
    with folder.emptied(tmp_path / "new"):
        (tmp_path / "new" / "run.jsonl").write_text("being written")
        with pytest.raises(Unusable, match="already"), folder.emptied(tmp_path / "new"):
            pass
        assert (tmp_path / "new" / "run.jsonl").exists()


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(Unusable, match="is a file"), folder.emptied(tmp_path / "file"):
        pass
