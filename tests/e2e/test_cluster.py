"""A minicluster always ends completely, leaves nothing behind, and does not disturb another cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from minicluster.lifecycle import Minicluster
from ops import cluster as api
from ops.servers.child import until
from tests.e2e.provider import Provider

START_AND_WAIT = """
import sys
from minicluster.lifecycle import Minicluster
Minicluster().start()
print("started", flush=True)
sys.stdin.read()
"""
DOWN = "from minicluster.lifecycle import Minicluster; Minicluster().destroy()"
END_TIMEOUT_S = 30
CGROUPS = Path("/sys/fs/cgroup")


class Second:
    """A second cluster, started by another process."""

    def __init__(self, state: Path) -> None:
        self.cluster = Minicluster(state)
        self.environment = os.environ | {"CLUSTER_STATE": str(state)}
        command = [sys.executable, "-c", START_AND_WAIT]
        self.owner = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        assert self.owner.stdout is not None
        assert "started" in self.owner.stdout.read(len("started"))
        known = json.loads((state / "running.json").read_text())
        self.init = psutil.Process(known["init"])
        self.processes = [self.init, *self.init.children(recursive=True)]

    def linked(self) -> bool:
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        return self.cluster.link_name in links

    def grouped(self) -> bool:
        """Whether the cluster's control group exists, in the hierarchy of cgroup v2 or in any of v1."""
        return any(
            place.exists() for place in (CGROUPS / self.cluster.cgroup, *CGROUPS.glob(f"*/{self.cluster.cgroup}"))
        )

    def gone(self) -> bool:
        return not any(each.is_running() for each in self.processes)

    def down(self) -> None:
        self.owner.kill()
        self.owner.communicate()
        subprocess.run([sys.executable, "-c", DOWN], env=self.environment, check=True, timeout=END_TIMEOUT_S)


@pytest.fixture
def second(provider: Provider, tmp_path: Path) -> Iterator[Second]:
    """A cluster beside the cluster of the other tests."""
    if not isinstance(provider, Minicluster):
        pytest.skip("These tests stop only a cluster that they started.")
    cluster = Second(tmp_path / "state")
    try:
        yield cluster
    finally:
        cluster.down()
    assert not cluster.linked()
    assert not cluster.grouped()
    assert not (tmp_path / "state").exists()


def test_cluster_ends_if_its_owner_is_killed(second: Second) -> None:
    names = {each.name() for each in second.processes}
    assert {"kubelet", "containerd", "coredns", "kube-apiserver"} <= names
    assert second.linked()
    assert second.grouped()
    second.owner.kill()
    until(second.gone, END_TIMEOUT_S, "the end of every process")


def test_cluster_ends_if_one_of_its_servers_is_killed(second: Second) -> None:
    next(each for each in second.processes if each.name() == "kube-scheduler").kill()
    until(second.gone, END_TIMEOUT_S, "the end of every process")


def test_first_cluster_still_answers(provider: Provider) -> None:
    if not isinstance(provider, Minicluster):
        pytest.skip("These tests stop only a cluster that they started.")
    assert api.ask("get", "--raw=/readyz").strip() == "ok"
