"""The folder of a cluster: what its servers start from, what they write, and who they are."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.run import ROOT
from local.files import write_private
from tests.e2e.cluster import certificates
from tests.e2e.cluster.layout import API_PORT, API_SERVICE_ADDRESS, NODE_ADDRESS, VOLUME_COUNT, VOLUMES

# that of this clone; another folder is another cluster, and two may run at once
STATE = Path(os.environ.get("E2E_STATE") or ROOT / ".local" / "cluster").absolute()
LOGS = "log"
KUBECONFIG = "kubeconfig"
CNI = Path(__file__).parent / "files" / "cni.conflist"
RUNNING = "running.json"
# a process' start is told by the machine's clock, which may have been set since
CLOCK_STEP_S = 2


@dataclass(frozen=True)
class Running:
    """The processes that hold the namespaces, and how the machine reaches them."""

    outer: int
    init: int
    # of the init: its number alone may be another process's by now
    started: float
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
    """What was started last, whether it is alive or not."""
    written = state / RUNNING
    return Running(**json.loads(written.read_text())) if written.exists() else None


def ours(state: Path) -> bool:
    """Whether nothing but a cluster's state can be in the folder."""
    return not state.exists() or not any(state.iterdir()) or (state / "cni" / CNI.name).exists()


def write(state: Path, address: str) -> None:
    """Everything that a cluster starts from; the address is that by which the machine reaches it."""
    (state / "cni").mkdir(parents=True)
    shutil.copy(CNI, state / "cni")  # first: `ours` knows the folder by it
    for each in (LOGS, VOLUMES):
        (state / each).mkdir()
    for number in range(VOLUME_COUNT):
        volume = state / VOLUMES / str(number)
        volume.mkdir()
        volume.chmod(0o777)  # its pod is not root
    folder = state / "certificates"
    certificates.make(folder, ["127.0.0.1", API_SERVICE_ADDRESS, NODE_ADDRESS, address])
    for who in ("admin", "node"):
        config = certificates.kubeconfig(folder, who, f"https://127.0.0.1:{API_PORT}")
        write_private(folder / f"{who}.kubeconfig", config)
    outside = state / KUBECONFIG
    write_private(outside, certificates.kubeconfig(folder, "admin", f"https://{address}:{API_PORT}"))
    for path in (*folder.iterdir(), outside):
        path.chmod(0o600)
