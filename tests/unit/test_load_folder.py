"""`make load` empties its folder only if the folder contains nothing but files of an earlier run."""

from pathlib import Path

import pytest

from loadtest import folder
from ops.command import Unusable


def test_files_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("old")
    (tmp_path / "system" / "redis").mkdir(parents=True)
    with folder.emptied(tmp_path):
        assert [each.name for each in tmp_path.iterdir()] == [folder.LOCK]


def test_folder_with_other_files_is_left_unchanged(tmp_path: Path) -> None:
    for name in ("run.jsonl", "thesis.txt"):
        (tmp_path / name).write_text("kept")
    with pytest.raises(Unusable, match=r"contains 'thesis\.txt'"), folder.emptied(tmp_path):
        pass
    assert {"run.jsonl", "thesis.txt"} <= {each.name for each in tmp_path.iterdir()}


def test_folder_of_a_running_load_test_is_left_unchanged(tmp_path: Path) -> None:
    with folder.emptied(tmp_path / "new"):
        (tmp_path / "new" / "run.jsonl").write_text("being written")
        with pytest.raises(Unusable, match="already"), folder.emptied(tmp_path / "new"):
            pass
        assert (tmp_path / "new" / "run.jsonl").exists()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(Unusable, match="is a file"), folder.emptied(tmp_path / "file"):
        pass
