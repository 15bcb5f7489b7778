"""The state folder of a cluster: certificates, kubeconfigs, logs, volumes, and the ids of its processes."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from minicluster import certificates
from minicluster.layout import API_PORT, API_SERVICE_ADDRESS, NODE_ADDRESS, VOLUME_COUNT, VOLUMES
from ops.command import ROOT
from ops.files import write_private

# The default folder is inside of this clone. Clusters with different folders can run at the same time.
STATE = Path(os.environ.get("CLUSTER_STATE") or ROOT / ".local" / "cluster").absolute()
LOGS = "log"
KUBECONFIG = "kubeconfig"
CNI = Path(__file__).parent / "files" / "cni.conflist"
RUNNING = "running.json"
# psutil computes the start time of a process from the machine's clock, which may have been adjusted since
CLOCK_STEP_S = 2


@dataclass(frozen=True)
class Running:
    """The running processes of a cluster, and its address."""

    # pid of `unshare`, which starts the first process of the namespaces
    outer: int
    # pid of that first process, and its start time, because pids are reused
    init: int
    started: float
    # the address at which the machine reaches the cluster
    address: str

    @property
    def alive(self) -> bool:
        try:
            return abs(psutil.Process(self.init).create_time() - self.started) < CLOCK_STEP_S
        except psutil.NoSuchProcess:
            return False

    def write(self, state: Path) -> None:
        (state / RUNNING).write_text(json.dumps(asdict(self)))


def read(state: Path) -> Running | None:
    """The processes of the last start, whether they are alive or not. None if there was no start."""
    written = state / RUNNING
    return Running(**json.loads(written.read_text())) if written.exists() else None


def is_of_a_cluster(state: Path) -> bool:
    """Whether the folder is missing, empty, or the state of a cluster. Only then it may be removed."""
    return not state.exists() or not any(state.iterdir()) or (state / "cni" / CNI.name).exists()


def write(state: Path, address: str) -> None:
    """Write the files that a cluster needs at startup. `address` is the IP address at which the machine reaches it."""
    (state / "cni").mkdir(parents=True)
    shutil.copy(CNI, state / "cni")  # first: `is_of_a_cluster` recognizes the folder by this file
    for each in (LOGS, VOLUMES):
        (state / each).mkdir()
    for number in range(VOLUME_COUNT):
        volume = state / VOLUMES / str(number)
        volume.mkdir()
        volume.chmod(0o777)  # the pod that uses it does not run as root
    folder = state / "certificates"
    certificates.make(folder, ["127.0.0.1", API_SERVICE_ADDRESS, NODE_ADDRESS, address])
    for who in ("admin", "node"):
        config = certificates.kubeconfig(folder, who, f"https://127.0.0.1:{API_PORT}")
        write_private(folder / f"{who}.kubeconfig", config)
    outside = state / KUBECONFIG
    write_private(outside, certificates.kubeconfig(folder, "admin", f"https://{address}:{API_PORT}"))
    for path in (*folder.iterdir(), outside):
        path.chmod(0o600)
