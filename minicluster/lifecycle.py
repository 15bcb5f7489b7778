"""A cluster from packages alone, inside private namespaces of this machine; its state is in a folder."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from deploy.run import ROOT, Unusable, answers, output
from deploy.tools import cache, kubectl, locked
from local.child import until
from tests.e2e.cluster import binaries, cgroups, link, packages, state
from tests.e2e.cluster.layout import HPA_SYNC_S, NODE
from tests.e2e.cluster.state import STATE, Running
from tests.e2e.platform import images

COREDNS = Path(__file__).parent / "coredns"
NODE_PORT = 30080
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
LOAD_TIMEOUT_S = 300
STEP_TIMEOUT_S = 60
POLL_S = 0.2


class Bare:
    """The cluster of a folder. One that runs already, by `make cluster`, is used and left running."""

    hpa_sync_s: float = HPA_SYNC_S

    def __init__(self, folder: Path = STATE, *, lasting: bool = False) -> None:
        self.state = folder
        self.logs = folder / state.LOGS
        self.kubeconfig = folder / state.KUBECONFIG
        self.lasting = lasting
        self.ours = False
        self.outer: subprocess.Popen[bytes] | None = None
        # by the folder, so that what a killed run left is found, and two clusters of one process have each its own;
        # a network device's name has at most 15 characters
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.cgroup, self.cable = f"sluice-{digest}", f"sluice{digest}"

    def __str__(self) -> str:
        return f"a cluster of their own, whose state is in {self.state}"

    def start(self) -> Path:
        with locked(self.state):
            if self._running():
                print(f"The cluster of {self.state} is running already: it is used as it is.", flush=True)
                return self.kubeconfig
            packages.ensure()
            self.destroy()
            try:
                self._launch()
                self._settle()
            except BaseException:
                self._end()  # half a cluster would be taken for one; what it logged stays
                raise
            self.ours = True
        return self.kubeconfig

    @property
    def address(self) -> str:
        """Where this machine reaches the node, and what listens in its network namespace."""
        return self._known().address

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
        """End it, and remove its files. Unusable if the folder holds something else."""
        if not state.ours(self.state):
            raise Unusable(f"{self.state} holds no cluster, and would be removed: name another folder by E2E_STATE.")
        self._end()
        shutil.rmtree(self.state, ignore_errors=True)

    def _end(self) -> None:
        """End the first process, and with it every other."""
        known = state.read(self.state)
        if known and known.alive:
            psutil.Process(known.outer).kill()
            until(lambda: not known.alive, STOP_TIMEOUT_S, "the end of the cluster")
        if self.outer:
            self.outer.wait(STOP_TIMEOUT_S)
        link.remove(self.cable)
        cgroups.remove(self.cgroup)

    def _launch(self) -> None:
        cable = link.choose(self.cable)
        state.write(self.state, cable.cluster)
        cgroups.make(self.cgroup)
        folders = [str(binaries.folder_of(module)) for module in (binaries.ETCD, binaries.KUBERNETES)]
        node = [sys.executable, "-m", "tests.e2e.cluster.node", str(self.state), f"/{self.cgroup}", *folders]
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        # a test run that is killed takes its cluster along
        end_with_us = [] if self.lasting else ["setpriv", "--pdeathsig=KILL"]
        with (self.logs / "node.log").open("ab") as log:
            self.outer = subprocess.Popen(
                [*end_with_us, *unshare, *node], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        init = self._first_child(self.outer)
        Running(self.outer.pid, init.pid, init.create_time(), cable.cluster).write(self.state)
        cable.attach(init.pid)

    def _settle(self) -> None:
        """Until the node is Ready and names are resolved."""
        api = (kubectl(), f"--kubeconfig={self.kubeconfig}")

        def known() -> bool:
            self._known()  # it may have ended meanwhile
            return answers(*api, "get", "node", NODE)

        until(known, START_TIMEOUT_S, "the start of the node", POLL_S)
        for archive in (_archive(binaries.PAUSE), _archive(binaries.COREDNS)):
            self.load_image(archive)
        output(*api, "apply", f"--kustomize={COREDNS}", timeout_s=STEP_TIMEOUT_S)
        wait = (f"--timeout={START_TIMEOUT_S}s",)
        output(*api, "wait", f"node/{NODE}", "--for=condition=Ready", *wait, timeout_s=START_TIMEOUT_S)
        where = ("deployment/coredns", "--namespace=kube-system")
        output(*api, "rollout", "status", *where, *wait, timeout_s=START_TIMEOUT_S)

    def _running(self) -> Running | None:
        known = state.read(self.state)
        return known if known and known.alive else None

    def _known(self) -> Running:
        running = self._running()
        if running is None:
            raise Unusable(f"The cluster does not run: start it by `make cluster`; why it ended is in {self.logs}.")
        return running

    def _first_child(self, outer: subprocess.Popen[bytes]) -> psutil.Process:
        """The process that unshare forked: the namespaces are made before it is."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < deadline:
            if outer.poll() is not None:
                raise Unusable(f"No namespaces can be made here: this needs a real root. {self.logs} says more.")
            children = psutil.Process(outer.pid).children()
            if children:
                return children[0]
            time.sleep(POLL_S)
        raise Unusable(f"unshare did not start anything within {STEP_TIMEOUT_S} s.")


def _archive(module: binaries.Module) -> Path:
    """The image of a program, by a name that needs no registry."""
    folder = binaries.folder_of(module)
    path = cache() / f"{folder.name}.tar"
    program = {f"/{module.name}": folder / module.name}
    with locked(path):
        return path if path.exists() else images.of_programs(program, [f"localhost/sluice-{module.name}:1"], path)
