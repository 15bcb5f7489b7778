"""A mark that all descendants of a process inherit and cannot remove. Tests use it to end leftover processes.

The mark is the resource limit on file locks, which Linux has not enforced since 2.4. It survives fork, exec, setsid
and an empty environment. /proc/<pid>/limits shows it.
"""

import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ops.servers.child import until

_RLIMIT_LOCKS = 10  # linux/resource.h; Python has no name for it
_DEADLINE_S = 20.0


def set_mark(mark: int) -> None:
    """Mark this process and all processes that it starts from now on."""
    resource.setrlimit(_RLIMIT_LOCKS, (mark, mark))


def marked_command(mark: int, command: Sequence[str]) -> list[str]:
    """Return a command that starts a process with this mark."""
    return ["prlimit", f"--locks={mark}:{mark}", *command]


def marked(mark: int) -> list[int]:
    """Return the ids of running processes with this mark."""
    line = f"Max file locks {mark} {mark} locks"
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if line in _limits(path)]


def end_marked(mark: int) -> None:
    """SIGKILL every process with this mark, and wait until there is none."""
    until(lambda: not any(list(map(_end, marked(mark)))), _DEADLINE_S, "the end of what the system started")


def _end(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # an orphan is our child, and stays a zombie until we reap it
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    return True


def _limits(process: Path) -> str:
    """Return the limits of a process with single spaces between words, or an empty text if it has ended."""
    try:
        return " ".join((process / "limits").read_text().split())
    except (OSError, UnicodeDecodeError):
        return ""
