"""The processes that a task has started: found in /proc by where they come from, and ended.

A process of the pool leads a session of its own, and bears a mark that every process inherits and none loses: neither
by fork, exec, setsid, a second fork, nor an empty environment. Left alone is what
  - began before the task. Except the helpers of the process: forks of it in its own session, and other processes of
    multiprocessing. They wait for work of it alone, and would wait for ever;
  - removes the shared memory of the others when they are gone: the resource tracker of multiprocessing;
  - was started by another process on request (systemd, cron, a container runtime), or runs as another user.
"""

import os
import resource
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# A limit on the CPU time of real-time processes, which an unprivileged process can only lower: at 146,000 years it
# limits nothing, and each process of the pool has a number of its own. /proc/<pid>/limits shows it.
_MARK_US = 2**62
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A process that is killed is gone within milliseconds, unless it waits for a disk or starts others faster than they
# are found. What then remains is logged.
_PASSES = 100
_PASS_S = 0.02


class Process(NamedTuple):
    """A line of /proc/<pid>/stat; a pid that is used again has another `started_ticks`."""

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
    """Called in a process of the pool: what it starts from here on can be found."""
    with suppress(PermissionError):  # it leads a group already
        os.setsid()
    mark = _MARK_US + os.getpid()
    # On another system, under a lower limit or in a sandbox there is no mark: the session and the tree remain.
    with suppress(AttributeError, ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (mark, mark))


def process(pid: int) -> Process | None:
    """The process of this id, or None."""
    line = _read(pid, "stat").decode(errors="replace")
    if not line:
        return None
    head, _, tail = line.rpartition(")")  # a name may have parentheses in it
    fields = tail.split()
    return Process(
        pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19])
    )


def end(leader: Process, since_s: float) -> list[str]:
    """End a process of the pool with its helpers, and with what its task, running since then, has started.

    `since_s` is of time.monotonic(); slots.NEVER_S: there was no task. Answers the names of what was ended besides;
    returns when all are gone.
    """
    return _end(leader, since_s, with_leader=True)


def end_started_by(leader: Process, since_s: float) -> list[str]:
    """The same, but for the process of the pool itself."""
    return _end(leader, since_s, with_leader=False)


def _end(leader: Process, since_s: float, *, with_leader: bool) -> list[str]:
    since_ticks = _ticks(since_s)
    ended: dict[int, Process] = {}
    for _ in range(_PASSES):
        # The leader first: its code then starts nothing more, and does not see what happens to the others.
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
    """The descendants of these by their parents; a process whose parent has ended has another one."""
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
    """Whether it was killed; not where it is gone, or another user's."""
    if not _is_alive(each):
        return False
    try:
        os.kill(each.pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def _ticks(at_s: float) -> float:
    """A time of time.monotonic() as /proc counts: from the boot, with the time that the machine slept."""
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return (at_s + slept_s) * _CLOCK_TICKS_PER_S - 1  # it rounds down
