"""Namespaces of the run's own: what happens to networks and processes here happens nowhere else, and ends with us."""

import os
import shutil
import signal
import subprocess
import sys
from typing import Any

from ops.command import Unusable

PROGRAMS = ("unshare", "setpriv", "nsenter", "ip", "iptables")
_INSIDE = "CHAOS_INSIDE"


def inside() -> bool:
    """Whether this is the first process of namespaces that `enter` made. The variable alone may be anybody's."""
    return bool(os.environ.get(_INSIDE)) and os.getpid() == 1


def enter(module: str, arguments: list[str]) -> None:
    """Run `python -m module arguments` inside, and exit with its status; returns at once where that was done before.

    SIGTERM, or our own end, ends all that runs inside. Raises Unusable where no namespaces can be made.
    """
    if inside():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        also = f", with {', '.join(missing)}" if missing else ""
        raise Unusable(f"Faults are injected in network namespaces of their own: run this on Linux, as root{also}.")
    # unshare does not hear SIGTERM while it waits; with its own end the kernel ends its child, and so everything inside
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *flags, sys.executable, "-m", module, *arguments]
    run = subprocess.Popen(command, env=os.environ | {_INSIDE: "1"})

    ended_by: list[int] = []

    def end(number: int, _: Any) -> None:
        # Not wait(): the interrupted call below has its lock, and goes on after this.
        ended_by.append(number)
        run.kill()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the run itself, which cleans up
    status = run.wait()
    sys.exit(128 + ended_by[0] if ended_by else status)
