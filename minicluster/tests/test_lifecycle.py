"""A cluster of our own takes nothing away but its own, and KUBECONFIG names it no longer than it is there."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.run import Unusable
from tests.e2e.cluster import provider, state
from tests.e2e.cluster.bare import Bare


def test_two_clusters_of_one_process_have_each_their_cable(tmp_path: Path) -> None:
    names = {Bare(tmp_path / name).cable for name in ("one", "two")}
    assert len(names) == 2
    assert all(len(name) <= 15 for name in names)  # what the kernel takes


def test_folder_with_something_else_in_it_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    with pytest.raises(Unusable, match="holds no cluster, and would be removed"):
        Bare(tmp_path).destroy()
    assert (tmp_path / "thesis").exists()


def test_folder_of_a_cluster_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    assert state.ours(tmp_path / "none")
    (tmp_path / "state").mkdir()
    assert state.ours(tmp_path / "state")
    (tmp_path / "state" / "cni").mkdir()
    assert not state.ours(tmp_path / "state")
    (tmp_path / "state" / "cni" / state.CNI.name).touch()
    assert state.ours(tmp_path / "state")


class Named(Bare):
    """Starts at once: there is nothing but its name."""

    def start(self) -> Path:
        return self.kubeconfig


class Stuck(Named):
    """Cannot be stopped."""

    def stop(self) -> None:
        raise Unusable("it stays")


def test_kubeconfig_is_given_back_before_the_cluster_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "somebody's")
    stuck = Stuck(tmp_path)
    with pytest.raises(Unusable, match="it stays"), provider.started(stuck):
        assert (os.environ["KUBECONFIG"], provider.STARTED) == (str(stuck.kubeconfig), [stuck])
    assert (os.environ["KUBECONFIG"], provider.STARTED) == ("somebody's", [])


def test_make_goes_to_the_cluster_whatever_the_make_before_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo $$KUBECONFIG\n")
    monkeypatch.setenv("MAKEFLAGS", " -- KUBECONFIG=somebody's")  # of `make e2e KUBECONFIG=somebody's`
    with provider.started(Named(tmp_path / "state")):
        said = subprocess.run(["make", "--silent"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}/state/kubeconfig\n"
