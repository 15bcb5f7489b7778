"""Namespaces for one run: its changes to networks and processes affect nothing else, and end with it."""

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
    """Return whether this is the first process in namespaces made by `enter`. The variable alone is no proof."""
    return bool(os.environ.get(_INSIDE)) and os.getpid() == 1


def enter(module: str, arguments: list[str]) -> None:
    """Run `python -m module arguments` in new namespaces, and exit with its status; returns if already inside.

    SIGTERM, or the end of this process, ends everything inside. Unusable if namespaces cannot be made.
    """
    if inside():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        also = f", with {', '.join(missing)}" if missing else ""
        raise Unusable(f"Faults are injected in network namespaces of their own: run this on Linux, as root{also}.")
    # unshare ignores SIGTERM while it waits; when it is killed, the kernel kills its child, and so everything inside
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *flags, sys.executable, "-m", module, *arguments]
    run = subprocess.Popen(command, env=os.environ | {_INSIDE: "1"})

    ended_by: list[int] = []

    def end(number: int, _: Any) -> None:
        # No wait() here: the interrupted call below holds its lock, and continues after this handler.
        ended_by.append(number)
        run.kill()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C also reaches the run, which cleans up
    status = run.wait()
    sys.exit(128 + ended_by[0] if ended_by else status)
