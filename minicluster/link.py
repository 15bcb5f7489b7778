"""A cable from the machine into the cluster's network namespace: a veth pair."""

import ipaddress
import os
import subprocess
from dataclasses import dataclass

TIMEOUT_S = 30
# link-local addresses: no route of the machine leads to them
ADDRESSES = ipaddress.IPv4Network("169.254.192.0/18")
INSIDE_NAME = "machine0"


@dataclass(frozen=True)
class Link:
    """Two addresses, the machine's and the cluster's."""

    name: str
    machine: str
    cluster: str

    def attach(self, pid: int) -> None:
        """Connect the machine with the namespace of a process."""
        peer = ("peer", "name", INSIDE_NAME, "netns", str(pid))
        _run("ip", "link", "add", self.name, "type", "veth", *peer)
        _run("ip", "address", "add", f"{self.machine}/30", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        _run(*inside, "address", "add", f"{self.cluster}/30", "dev", INSIDE_NAME)
        _run(*inside, "link", "set", INSIDE_NAME, "up")


def remove(name: str) -> None:
    """Take the cable away: the kernel does so itself, but up to minutes after the namespace's last process."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=TIMEOUT_S)


def choose(name: str) -> Link:
    """A pair of addresses that nothing on this machine has; two clusters that start at once differ by our pid."""
    used = subprocess.run(["ip", "-o", "address"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    pairs = list(ADDRESSES.subnets(new_prefix=30))
    for step in range(len(pairs)):
        machine, cluster = pairs[(os.getpid() + step) % len(pairs)].hosts()
        if f" {machine}/" not in used:
            return Link(name, str(machine), str(cluster))
    raise AssertionError("four thousand clusters run here")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
