"""A cluster removes only its own files, and has unique names."""

from pathlib import Path

import pytest

from minicluster import state
from minicluster.lifecycle import Minicluster
from ops.command import Unusable


def test_two_clusters_of_one_process_have_different_links(tmp_path: Path) -> None:
    names = {Minicluster(tmp_path / name).link_name for name in ("one", "two")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)  # the kernel's limit


def test_folder_with_other_files_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    with pytest.raises(Unusable, match="is not the state of a cluster, and would be removed"):
        Minicluster(tmp_path).destroy()
    assert (tmp_path / "thesis").exists()


def test_folder_of_a_cluster_is_recognized_by_its_files(tmp_path: Path) -> None:
    assert state.is_of_a_cluster(tmp_path / "none")
    (tmp_path / "state").mkdir()
    assert state.is_of_a_cluster(tmp_path / "state")
    (tmp_path / "state" / "cni").mkdir()
    assert not state.is_of_a_cluster(tmp_path / "state")
    (tmp_path / "state" / "cni" / state.CNI.name).touch()
    assert state.is_of_a_cluster(tmp_path / "state")
