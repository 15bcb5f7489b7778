"""A cluster from packages alone, inside private namespaces of this machine; its state is in .local/cluster."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.run import ROOT, Unusable, answers, output
from deploy.secrets import listed
from deploy.tools import cache, kubectl, locked
from tests.e2e.cluster import binaries, certificates, cgroups, link, packages
from tests.e2e.cluster.layout import (
    API_PORT,
    API_SERVICE_ADDRESS,
    INSIDE,
    NODE,
    NODE_ADDRESS,
    VOLUME_COUNT,
    VOLUMES,
)
from tests.e2e.platform import images, volumes

# another folder is another cluster: E2E_STATE lets two run at once
STATE = Path(os.environ.get("E2E_STATE") or ROOT / ".local" / "cluster").absolute()
COREDNS = Path(__file__).parent / "coredns"
CNI = Path(__file__).parent / "files" / "cni.conflist"
NODE_PORT = 30080
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
LOAD_TIMEOUT_S = 300
STEP_TIMEOUT_S = 60
POLL_S = 0.2
# a process' start is told by the machine's clock, which may have been set since
CLOCK_STEP_S = 2


@dataclass(frozen=True)
class Running:
    """The processes that hold the namespaces, and how the machine reaches them."""

    outer: int
    init: int
    # of the init: its number alone may be another process's by now
    started: float
    cluster_address: str
    link: str

    @property
    def alive(self) -> bool:
        try:
            return abs(psutil.Process(self.init).create_time() - self.started) < CLOCK_STEP_S
        except psutil.NoSuchProcess:
            return False


class Bare:
    """The cluster of this clone. One that runs already, by `make cluster`, is used and left running."""

    def __init__(self, *, lasting: bool = False) -> None:
        self.lasting = lasting
        self.ours = False
        self.kubeconfig = STATE / "kubeconfig"
        # by the folder, so that what a killed run left is found
        self.cgroup = f"sluice-{hashlib.sha256(str(STATE).encode()).hexdigest()[:8]}"

    def start(self) -> Path:
        with locked(STATE):
            if self._running():
                print(f"The cluster of {STATE} is running already: it is used as it is.", flush=True)
                return self.kubeconfig
            packages.ensure()
            archives = [_pause(), _coredns()]
            self.ours = True
            self._launch()
        for archive in archives:
            self.load_image(archive)
        self._settle()
        return self.kubeconfig

    @property
    def address(self) -> str:
        """Where this machine reaches the node, and what listens in its network namespace."""
        return self._known().cluster_address

    @property
    def entrance(self) -> str:
        return f"http://{self.address}:{NODE_PORT}"

    def load_image(self, archive: Path) -> None:
        command = self.inside("ctr", "--namespace=k8s.io", "images", "import", str(archive))
        output(*command, timeout_s=LOAD_TIMEOUT_S)

    def inside(self, *command: str) -> list[str]:
        """The command, in all of the cluster's namespaces: it sees the node's network, and ends with the cluster."""
        return ["nsenter", f"--target={self._known().init}", "--all", "--", *command]

    def kill(self, container: str) -> None:
        """SIGKILL for a container's first process."""
        kill = ("tasks", "kill", "--signal=SIGKILL", container)
        output(*self.inside("ctr", "--namespace=k8s.io", *kill), timeout_s=STEP_TIMEOUT_S)

    def stop(self) -> None:
        """Ends it if this object started it."""
        if self.ours:
            self.destroy()

    def destroy(self) -> None:
        """End the first process, and with it every other; then nothing but files is left to remove."""
        known = _read()
        if known and known.alive:
            psutil.Process(known.outer).kill()
            _until("the end of the cluster", lambda: not known.alive, STOP_TIMEOUT_S)
        if known:
            link.remove(known.link)
        cgroups.remove(self.cgroup)
        shutil.rmtree(STATE, ignore_errors=True)

    def _launch(self) -> None:
        self.destroy()
        cable = link.choose()
        _write_state(cable.cluster)
        cgroups.make(self.cgroup)
        folders = [str(binaries.folder_of(module)) for module in (binaries.ETCD, binaries.KUBERNETES)]
        node = [sys.executable, "-m", "tests.e2e.cluster.node", str(STATE), f"/{self.cgroup}", *folders]
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        # a test run that is killed takes its cluster along
        end_with_us = [] if self.lasting else ["setpriv", "--pdeathsig=KILL"]
        with (STATE / "log" / "node.log").open("ab") as log:
            outer = subprocess.Popen(
                [*end_with_us, *unshare, *node], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        init = _first_child(outer)
        known = Running(outer.pid, init.pid, init.create_time(), cable.cluster, cable.name)
        (STATE / "running.json").write_text(json.dumps(asdict(known)))
        cable.attach(init.pid)

    def _settle(self) -> None:
        """Until the node is Ready and names are resolved."""
        api = (kubectl(), f"--kubeconfig={self.kubeconfig}")
        _until("the API server", lambda: answers(*api, "get", "node", NODE), START_TIMEOUT_S, self._alive)
        output(*api, "apply", f"--kustomize={COREDNS}", timeout_s=STEP_TIMEOUT_S)
        folders = listed(volumes.objects(INSIDE / VOLUMES, NODE, VOLUME_COUNT))
        output(*api, "apply", "--filename=-", text=folders, timeout_s=STEP_TIMEOUT_S)
        wait = (f"--timeout={START_TIMEOUT_S}s",)
        output(*api, "wait", f"node/{NODE}", "--for=condition=Ready", *wait, timeout_s=START_TIMEOUT_S)
        where = ("deployment/coredns", "--namespace=kube-system")
        output(*api, "rollout", "status", *where, *wait, timeout_s=START_TIMEOUT_S)

    def _alive(self) -> None:
        if not self._running():
            last = (STATE / "log" / "node.log").read_text().strip().splitlines()[-1:] or ["it said nothing."]
            raise Unusable(f"The cluster ended while it started ({last[0]}); {STATE / 'log'} says more.")

    def _running(self) -> Running | None:
        known = _read()
        return known if known and known.alive else None

    def _known(self) -> Running:
        running = self._running()
        if running is None:
            raise Unusable("The cluster does not run: start it by `make cluster`.")
        return running


def _read() -> Running | None:
    path = STATE / "running.json"
    return Running(**json.loads(path.read_text())) if path.exists() else None


def _write_state(address: str) -> None:
    for each in (STATE / "log", STATE / "cni", STATE / VOLUMES):
        each.mkdir(parents=True)
    shutil.copy(CNI, STATE / "cni")
    for number in range(VOLUME_COUNT):
        volume = STATE / VOLUMES / str(number)
        volume.mkdir()
        volume.chmod(0o777)  # its pod is not root
    folder = STATE / "certificates"
    certificates.make(folder, ["127.0.0.1", API_SERVICE_ADDRESS, NODE_ADDRESS, address])
    for who in ("admin", "node"):
        config = certificates.kubeconfig(folder, who, f"https://127.0.0.1:{API_PORT}")
        (folder / f"{who}.kubeconfig").write_text(config)
    (STATE / "kubeconfig").write_text(certificates.kubeconfig(folder, "admin", f"https://{address}:{API_PORT}"))
    for path in (*folder.iterdir(), STATE / "kubeconfig"):
        path.chmod(0o600)


def _pause() -> Path:
    return _image(binaries.PAUSE, "/pause", "localhost/sluice-pause:1", "pause")


def _coredns() -> Path:
    return _image(binaries.COREDNS, "/coredns", "localhost/sluice-coredns:1", "coredns")


def _image(module: binaries.Module, place: str, name: str, program: str) -> Path:
    folder = binaries.folder_of(module)
    path = cache() / f"{folder.name}.tar"
    with locked(path):
        return path if path.exists() else images.of_programs({place: folder / program}, [name], path)


def _first_child(outer: "subprocess.Popen[bytes]") -> psutil.Process:
    """The process that unshare forked: the namespaces are made before it is."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while time.monotonic() < deadline:
        if outer.poll() is not None:
            raise Unusable("No namespaces can be made here (see .local/cluster/log/node.log): this needs a real root.")
        children = psutil.Process(outer.pid).children()
        if children:
            return children[0]
        time.sleep(POLL_S)
    raise Unusable(f"unshare did not start anything within {STEP_TIMEOUT_S} s.")


def _until(what: str, done: Callable[[], bool], timeout_s: float, check: Callable[[], object] = bool) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        check()
        if time.monotonic() > deadline:
            raise Unusable(f"Waited {timeout_s:g} s for {what}: {STATE / 'log'} may say why.")
        time.sleep(POLL_S)
