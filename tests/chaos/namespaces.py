"""Namespaces of the run's own: what happens to networks and processes here happens nowhere else, and ends with us."""

import os
import shutil
import subprocess
import sys

from local.child import Unusable

INSIDE = "CHAOS_INSIDE"


def enter(module: str, arguments: list[str]) -> None:
    """Run `python -m module arguments` inside, in place of this process; returns at once where that was done before.

    Raises Unusable where no namespaces can be made.
    """
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        raise Unusable("Faults are injected in network namespaces of their own: run this on Linux, as root.")
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", *flags, sys.executable, "-m", module, *arguments])  # noqa: S606
