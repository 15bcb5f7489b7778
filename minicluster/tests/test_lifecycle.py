"""A cluster removes nothing but its own files, and has names of its own."""

from pathlib import Path

import pytest

from minicluster import state
from minicluster.lifecycle import Minicluster
from ops.command import Unusable


def test_two_clusters_of_one_process_have_each_their_cable(tmp_path: Path) -> None:
    names = {Minicluster(tmp_path / name).cable for name in ("one", "two")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)  # what the kernel takes


def test_folder_with_something_else_in_it_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    with pytest.raises(Unusable, match="holds no cluster, and would be removed"):
        Minicluster(tmp_path).destroy()
    assert (tmp_path / "thesis").exists()


def test_folder_of_a_cluster_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    assert state.is_of_a_cluster(tmp_path / "none")
    (tmp_path / "state").mkdir()
    assert state.is_of_a_cluster(tmp_path / "state")
    (tmp_path / "state" / "cni").mkdir()
    assert not state.is_of_a_cluster(tmp_path / "state")
    (tmp_path / "state" / "cni" / state.CNI.name).touch()
    assert state.is_of_a_cluster(tmp_path / "state")
