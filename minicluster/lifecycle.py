"""Starts, uses and stops a cluster. Its processes run in private namespaces, and its state is in a folder."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from minicluster import archives, binaries, cgroups, link, prerequisites, state
from minicluster.layout import HPA_SYNC_S, NODE
from minicluster.state import STATE, Running
from ops.command import ROOT, Unusable, answers, output
from ops.servers.child import until
from ops.tools import cache, kubectl, locked

COREDNS = Path(__file__).parent / "coredns"
NODE_PORT = 30080
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
LOAD_TIMEOUT_S = 300
STEP_TIMEOUT_S = 60
POLL_S = 0.2


class Minicluster:
    """The cluster whose state is in `folder`. If a cluster already runs there, it is used, and `stop` does not stop it.

    Unless `lasting` is true, the cluster ends with the process that started it.
    """

    hpa_sync_s: float = HPA_SYNC_S

    def __init__(self, folder: Path = STATE, *, lasting: bool = False) -> None:
        self.state = folder
        self.logs = folder / state.LOGS
        self.kubeconfig = folder / state.KUBECONFIG
        self.lasting = lasting
        self._started_here = False
        self._outer: subprocess.Popen[bytes] | None = None
        # The names depend on the folder: the next run finds the leftovers of a killed run, and two clusters have
        # different names. The name of a network device has at most 15 characters.
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.cgroup, self.link_name = f"sluice-{digest}", f"sluice{digest}"

    def __str__(self) -> str:
        return f"a new cluster, whose state is in {self.state}"

    def start(self) -> Path:
        """Start the cluster, and wait until its node is Ready and CoreDNS runs. Returns the path of the kubeconfig.

        Raises Unusable if the machine cannot run a cluster, and TimeoutError if it is not ready in time.
        """
        with locked(self.state):
            if self._running():
                print(f"The cluster in {self.state} is already running, and is used unchanged.", flush=True)
                return self.kubeconfig
            prerequisites.ensure()
            self.destroy()
            try:
                self._launch()
                self._settle()
            except BaseException:
                self._end()  # the next start must not find an incomplete cluster; the logs are kept
                raise
            self._started_here = True
        return self.kubeconfig

    @property
    def address(self) -> str:
        """The IP address at which this machine reaches the node. Raises Unusable if the cluster does not run."""
        return self._known().address

    @property
    def entrance(self) -> str:
        """The URL of the ingress controller. Raises Unusable if the cluster does not run."""
        return f"http://{self.address}:{NODE_PORT}"

    def load_image(self, archive: Path) -> None:
        """Import the images of a docker-archive into the node."""
        command = self.inside("ctr", "--namespace=k8s.io", "images", "import", str(archive))
        output(*command, timeout_s=LOAD_TIMEOUT_S)

    def ensure_image(self, archive: Path, name: str) -> None:
        """Import an archive unless the node has an image of this name. The name must change with the content."""
        there = output(*self.inside("ctr", "--namespace=k8s.io", "images", "list", "--quiet"), timeout_s=STEP_TIMEOUT_S)
        if name not in there.split():
            self.load_image(archive)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in the cluster's namespaces. The command ends with the cluster."""
        return ["nsenter", f"--target={self._known().init}", "--all", "--", *command]

    def kill(self, container: str) -> None:
        """Send SIGKILL to a container's first process."""
        kill = ("tasks", "kill", "--signal=SIGKILL", container)
        output(*self.inside("ctr", "--namespace=k8s.io", *kill), timeout_s=STEP_TIMEOUT_S)

    def stop(self) -> None:
        """Destroy the cluster if this object has started it."""
        if self._started_here:
            self.destroy()

    def destroy(self) -> None:
        """Stop the cluster and remove its folder. Raises Unusable if the folder contains other files."""
        if not state.is_of_a_cluster(self.state):
            raise Unusable(
                f"{self.state} is not the state of a cluster, and would be removed: set CLUSTER_STATE to another one."
            )
        self._end()
        shutil.rmtree(self.state, ignore_errors=True)

    def _end(self) -> None:
        """Kill the first process of the namespaces; the kernel then kills all others."""
        known = state.read(self.state)
        if known and known.alive:
            psutil.Process(known.outer).kill()
            until(lambda: not known.alive, STOP_TIMEOUT_S, "the end of the cluster")
        if self._outer:
            self._outer.wait(STOP_TIMEOUT_S)
        link.remove(self.link_name)
        cgroups.remove(self.cgroup)

    def _launch(self) -> None:
        pair = link.choose(self.link_name)
        state.write(self.state, pair.cluster)
        cgroups.make(self.cgroup)
        folders = [str(binaries.folder_of(module)) for module in (binaries.ETCD, binaries.KUBERNETES)]
        node = [sys.executable, "-m", "minicluster.node", str(self.state), f"/{self.cgroup}", *folders]
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        # the cluster ends with this process, even if this process is killed
        end_with_us = [] if self.lasting else ["setpriv", "--pdeathsig=KILL"]
        with (self.logs / "node.log").open("ab") as log:
            self._outer = subprocess.Popen(
                [*end_with_us, *unshare, *node], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        init = self._first_child(self._outer)
        Running(self._outer.pid, init.pid, init.create_time(), pair.cluster).write(self.state)
        pair.attach(init.pid)

    def _settle(self) -> None:
        """Wait until the node is Ready and CoreDNS runs."""
        api = (kubectl(), f"--kubeconfig={self.kubeconfig}")

        def known() -> bool:
            self._known()  # raises if the cluster has ended in the meantime
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
            raise Unusable(f"The cluster does not run: start it with `make cluster`. The logs are in {self.logs}.")
        return running

    def _first_child(self, outer: subprocess.Popen[bytes]) -> psutil.Process:
        """The process that `unshare` forks after it has created the namespaces."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < deadline:
            if outer.poll() is not None:
                raise Unusable(f"Namespaces cannot be created: run this as root, with CAP_SYS_ADMIN. See {self.logs}.")
            children = psutil.Process(outer.pid).children()
            if children:
                return children[0]
            time.sleep(POLL_S)
        raise Unusable(f"unshare did not start anything within {STEP_TIMEOUT_S} s.")


def _archive(module: binaries.Module) -> Path:
    """The path of the archive of an image that contains the module's program."""
    folder = binaries.folder_of(module)
    path = cache() / f"{folder.name}.tar"
    program = {f"/{module.name}": folder / module.name}
    with locked(path):
        return path if path.exists() else archives.of_programs(program, [f"localhost/sluice-{module.name}:1"], path)
