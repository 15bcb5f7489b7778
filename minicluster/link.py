"""The network link between the machine and a cluster's network namespace: a veth pair."""

import ipaddress
import os
import subprocess
from dataclasses import dataclass

from ops.command import Unusable

TIMEOUT_S = 30
# link-local addresses, which no route of the machine uses
ADDRESSES = ipaddress.IPv4Network("169.254.192.0/18")
INSIDE_NAME = "machine0"


@dataclass(frozen=True)
class Link:
    """A veth pair. `name` is the device on the machine; `machine` and `cluster` are the IP addresses of the ends."""

    name: str
    machine: str
    cluster: str

    def attach(self, pid: int) -> None:
        """Connect the machine with the network namespace of a process."""
        peer = ("peer", "name", INSIDE_NAME, "netns", str(pid))
        _run("ip", "link", "add", self.name, "type", "veth", *peer)
        _run("ip", "address", "add", f"{self.machine}/30", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        _run(*inside, "address", "add", f"{self.cluster}/30", "dev", INSIDE_NAME)
        _run(*inside, "link", "set", INSIDE_NAME, "up")


def remove(name: str) -> None:
    """Remove the link. The kernel would remove it up to minutes after the last process of the namespace has ended."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=TIMEOUT_S)


def choose(name: str) -> Link:
    """Choose two addresses that are unused on this machine. Raises Unusable if all are in use."""
    used = subprocess.run(["ip", "-o", "address"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    pairs = list(ADDRESSES.subnets(new_prefix=30))
    for step in range(len(pairs)):
        # the first candidate depends on the pid, so that two clusters that start together choose different addresses
        machine, cluster = pairs[(os.getpid() + step) % len(pairs)].hosts()
        if f" {machine}/" not in used:
            return Link(name, str(machine), str(cluster))
    raise Unusable(f"Every address of {ADDRESSES} is in use: stop a cluster with `make cluster-down`.")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
