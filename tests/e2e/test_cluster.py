"""A minicluster ends as a whole and leaves nothing behind, however it ends, and does not disturb another one."""

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
    """Another cluster, whose owner is another process."""

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
        """Whether its control group exists, in the hierarchy of cgroup v2 or in any of v1."""
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
    """A cluster beside that of the other tests."""
    if not isinstance(provider, Minicluster):
        pytest.skip("Only a cluster of our own is ended.")
    cluster = Second(tmp_path / "state")
    try:
        yield cluster
    finally:
        cluster.down()
    assert not cluster.linked()
    assert not cluster.grouped()
    assert not (tmp_path / "state").exists()


def test_cluster_ends_with_a_killed_owner(second: Second) -> None:
    names = {each.name() for each in second.processes}
    assert {"kubelet", "containerd", "coredns", "kube-apiserver"} <= names
    assert second.linked()
    assert second.grouped()
    second.owner.kill()
    until(second.gone, END_TIMEOUT_S, "the end of every process")


def test_cluster_ends_with_any_of_its_servers(second: Second) -> None:
    next(each for each in second.processes if each.name() == "kube-scheduler").kill()
    until(second.gone, END_TIMEOUT_S, "the end of every process")


def test_the_other_cluster_is_untouched(provider: Provider) -> None:
    if not isinstance(provider, Minicluster):
        pytest.skip("Only a cluster of our own is ended.")
    assert api.ask("get", "--raw=/readyz").strip() == "ok"
