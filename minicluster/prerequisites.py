"""Checks the prerequisites of a cluster, Linux and root, and installs Debian packages (containerd, runc, ip, ...)."""

import os
import sys
from pathlib import Path

from ops.apt import apt_install
from ops.command import Unusable
from ops.servers.programs import find

# program -> its Debian package
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
    """Install missing packages, and print their names. Raises Unusable if this machine cannot run a cluster."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unusable(
            "A local cluster needs Linux and root: set E2E_CONTEXT to the kubectl context of another cluster."
        )
    missing = [package for program, package in PACKAGES.items() if find(program) is None]
    if not CNI_PLUGIN.exists():
        missing.append(CNI_PACKAGE)
    if missing:
        apt_install(missing)
