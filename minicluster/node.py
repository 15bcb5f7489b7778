"""The first process in a cluster's namespaces: `python -m minicluster.node STATE CGROUP ETCD KUBERNETES`.

ETCD and KUBERNETES are the folders of their programs. This process sets up the network, starts every server and waits.
When it ends, the kernel kills all processes in the namespaces, including those of pods. It ends as soon as any server
ends, because clients of an incomplete cluster would only time out.
"""

import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minicluster import components
from minicluster.layout import API_PORT, BRIDGE, CERTIFICATES, INSIDE, NODE_ADDRESS, SERVICE_NETWORK

STEP_TIMEOUT_S = 60
POLL_S = 0.1
LOGS = Path("/var/log")


def main() -> None:
    """Start every server in order, then wait until one of them ends."""
    state, cgroup, etcd, kubernetes = sys.argv[1:]
    _mount(Path(state))
    _network()
    running = {
        _start("containerd", components.containerd()): "containerd",
        _start("etcd", components.etcd(Path(etcd))): "etcd",
    }
    programs = Path(kubernetes)
    _until("etcd", lambda: _listens(components.ETCD_PORT))
    running[_start("kube-apiserver", components.api_server(programs))] = "kube-apiserver"
    _until("kube-apiserver", _api_ready)
    _until("containerd", components.CONTAINERD_SOCKET.exists)
    for name, command in {
        "kube-controller-manager": components.controller_manager(programs),
        "kube-scheduler": components.scheduler(programs),
        "kubelet": components.kubelet(programs, cgroup),
        "kube-proxy": components.proxy(programs),
    }.items():
        running[_start(name, command)] = name
    _watch(running)


def _mount(state: Path) -> None:
    """Mount private folders over the paths that the servers write to. All other files are the machine's."""
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    INSIDE.mkdir()
    _run("mount", "--bind", str(state), str(INSIDE))
    _run("mount", "--bind", str(INSIDE / "log"), str(LOGS))
    Path("/var/lib/cni").mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni")


def _network() -> None:
    _run("ip", "link", "set", "lo", "up")
    # the CNI plugin would create the bridge with the first pod, but the node needs its address before
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    # the API server needs this route to reach the Services of webhooks
    _run("ip", "route", "add", SERVICE_NETWORK, "dev", BRIDGE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _start(name: str, command: list[str]) -> int:
    with (LOGS / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def _until(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"{what} was not ready within {STEP_TIMEOUT_S} s.")
        time.sleep(POLL_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _api_ready() -> bool:
    trust = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.crt"))
    connection = http.client.HTTPSConnection("localhost", API_PORT, timeout=STEP_TIMEOUT_S, context=trust)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _watch(running: dict[int, str]) -> None:
    """Reap every process that ends, as the first process of a PID namespace must, until a server ends."""
    while True:
        pid, status = os.wait()
        if pid in running:
            sys.exit(f"{running[pid]} ended with {os.waitstatus_to_exitcode(status)}: see its log.")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=STEP_TIMEOUT_S)


if __name__ == "__main__":
    main()
