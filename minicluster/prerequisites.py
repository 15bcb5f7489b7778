"""What a cluster needs of the machine: Linux, root, and Debian packages of containerd, runc and network tools."""

import os
import sys
from pathlib import Path

from ops.apt import apt_install
from ops.command import Unusable
from ops.servers.programs import find

# program -> the Debian package that has it
PACKAGES = {
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
    """Install the packages that are missing, and print which. Unusable if this machine cannot run a cluster."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unusable(
            "A cluster of its own needs Linux and root: name the kubectl context of another one by E2E_CONTEXT=..."
        )
    missing = [package for program, package in PACKAGES.items() if find(program) is None]
    if not CNI_PLUGIN.exists():
        missing.append(CNI_PACKAGE)
    if missing:
        apt_install(missing)
