"""What a cluster of our own needs of Debian: containerd and what it starts, the network's tools."""

import os
import sys
from pathlib import Path

from deploy.run import Unusable
from local.programs import apt_install, find

# what shows that a package is there -> its name
PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
}
CNI_PLUGIN = Path("/usr/lib/cni/bridge")
CNI_PACKAGE = "containernetworking-plugins"


def ensure() -> None:
    """Install what is missing, saying so. Unusable where no cluster can be made."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unusable(
            "A cluster of its own needs Linux and root: name the kubectl context of another one by E2E_CONTEXT=..."
        )
    missing = [package for program, package in PROGRAMS.items() if find(program) is None]
    if not CNI_PLUGIN.exists():
        missing.append(CNI_PACKAGE)
    if missing:
        apt_install(missing)
