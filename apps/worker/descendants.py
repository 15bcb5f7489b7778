"""Finds the descendants of a task in /proc, and kills them.

A process of the pool leads its own session, and has a mark that all descendants inherit and cannot lose by fork, exec,
setsid, a double fork or an empty environment. Not killed are
  - processes that started before the task, except the helpers of the pool's process: forks in its own session, and
    other processes of multiprocessing. They only wait for its work, and would wait for ever;
  - multiprocessing's resource tracker, which removes the shared memory of the others after their end;
  - processes that another process started on request (systemd, cron, a container runtime), or of another user.
"""

import os
import resource
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# The mark is a limit on the CPU time of real-time processes (RLIMIT_RTTIME), which an unprivileged process can only
# lower. It is unique for each process of the pool, at 146,000 years has no effect, and is visible in
# /proc/<pid>/limits.
_MARK_US = 2**62
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A killed process ends within milliseconds, unless it waits for a disk, or starts others faster than they are found.
# The caller logs the killed processes.
_PASSES = 100
_PASS_S = 0.02


class Process(NamedTuple):
    """Fields of /proc/<pid>/stat; `started_ticks` distinguishes processes with a reused pid."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    started_ticks: int

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


def become_leader() -> None:
    """Mark this process of the pool: its descendants can then be found."""
    with suppress(PermissionError):  # it already leads a group
        os.setsid()
    mark = _MARK_US + os.getpid()
    # Without the mark (other systems, a lower limit, a sandbox), only the session and the process tree are searched.
    with suppress(AttributeError, ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (mark, mark))


def process(pid: int) -> Process | None:
    """Read the process with this id; None if there is none."""
    line = _read(pid, "stat").decode(errors="replace")
    if not line:
        return None
    head, _, tail = line.rpartition(")")  # a name may contain parentheses
    fields = tail.split()
    return Process(
        pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19])
    )


def end(leader: Process, since_s: float) -> list[str]:
    """Kill a process of the pool, its helpers, and the descendants of its task, and wait for their end.

    `since_s` is the start of the task by time.monotonic(), or slots.NEVER_S without a task. Returns the names of the
    killed processes, except the process of the pool itself.
    """
    return _end(leader, since_s, with_leader=True)


def end_started_by(leader: Process, since_s: float) -> list[str]:
    """Like `end`, but does not kill the process of the pool."""
    return _end(leader, since_s, with_leader=False)


def _end(leader: Process, since_s: float, *, with_leader: bool) -> list[str]:
    since_ticks = _ticks(since_s)
    ended: dict[int, Process] = {}
    for _ in range(_PASSES):
        # Kill the leader first: its code then cannot start more processes, or react to the end of the others.
        alive = [leader] if with_leader and _is_alive(leader) else []
        alive += _started_by(leader, {leader.pid, *ended}, since_ticks)
        killed = [each for each in alive if _kill(each)]
        if not killed:
            break
        ended |= {each.pid: each for each in killed if each != leader}
        time.sleep(_PASS_S)
    return [str(each) for each in ended.values()]


def _started_by(leader: Process, roots: set[int], since_ticks: float) -> list[Process]:
    everything = {each.pid: each for each in map(process, _pids()) if each}
    tree = _tree(everything, roots)
    mark = str(_MARK_US + leader.pid)
    program = _read("self", "cmdline")

    def is_a_descendant(each: Process) -> bool:
        return leader.pid in {each.session, each.group} or each.pid in tree or _is_marked(each.pid, mark)

    def is_of_this_run(each: Process) -> bool:
        return each.started_ticks >= since_ticks or (each.session == leader.pid and _is_helper(each.pid, program))

    spared = {leader.pid, os.getpid()}
    found = [each for each in everything.values() if each.pid not in spared and each.state != "Z"]
    return [
        each for each in found if is_a_descendant(each) and is_of_this_run(each) and not _is_resource_tracker(each.pid)
    ]


def _pids() -> Iterable[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _tree(everything: dict[int, Process], roots: set[int]) -> set[int]:
    """The descendants of `roots` by parent ids. Processes whose parent has ended are missing."""
    children: dict[int, list[int]] = {}
    for each in everything.values():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        new = set(children.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _is_marked(pid: int, mark: str) -> bool:
    return mark.encode() in _read(pid, "limits")


def _is_helper(pid: int, program: bytes) -> bool:
    command = _read(pid, "cmdline")
    return command == program or b"from multiprocessing." in command or b".loky." in command


def _is_resource_tracker(pid: int) -> bool:
    return b"resource_tracker import main" in _read(pid, "cmdline")


def _read(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def _is_alive(each: Process) -> bool:
    now = process(each.pid)
    return now is not None and now.started_ticks == each.started_ticks and now.state != "Z"


def _kill(each: Process) -> bool:
    """Kill a process; returns False if it has ended or belongs to another user."""
    if not _is_alive(each):
        return False
    try:
        os.kill(each.pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def _ticks(at_s: float) -> float:
    """Convert a time of time.monotonic() to /proc's clock ticks since boot, which include suspend time."""
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return (at_s + slept_s) * _CLOCK_TICKS_PER_S - 1  # /proc rounds down
