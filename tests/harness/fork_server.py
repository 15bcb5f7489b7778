"""Starts the system's processes by forking a process that has imported all modules: imports dominate the start time.

    tests -- module, arguments, environment, log --> fork server --forks--> the process, a child of the tests

Apart from that, a process behaves as with `python -m module arguments`. The modules read no environment variables at
import. The process is a child of the tests (the fork server forks twice, and the kernel makes us the orphan's parent),
has its own session, and dies with the tests.
"""

import ctypes
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self

from ops.servers.child import Child
from tests.harness.process_marks import set_mark

ROOT = Path(__file__).parents[2]
IMPORTED = (
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.worker.components",
    "kombu.transport.pyamqp",
    "apps.worker.backend",
    "apps.worker.consumer",
    "apps.worker.request",
    "apps.worker.threads",
    # Imports of the recorder and of apps.worker.dead_letters, which run as programs and cannot be imported themselves.
    "aiormq",
    "apps.broker",
    "apps.worker.dead_letter_reader",
    "redis.asyncio",
    "tests.harness.api",
    "tests.harness.tasks",
)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class ForkServer:
    """One per test process; a context manager."""

    def __init__(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        command = [sys.executable, "-m", "tests.harness.fork_server"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends when its input ends

    def fork(self, command: Sequence[str], *, output: Path, log: Path, env: Mapping[str, str], mark: int | None) -> int:
        """Start `python -m` with a module and its arguments, and write stderr to `log`; returns the process id."""
        assert self._process.stdin
        assert self._process.stdout
        module, *arguments = command
        wanted = {"module": module, "arguments": arguments, "env": dict(env), "mark": mark}
        wanted |= {"output": str(output), "log": str(log)}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Forked(Child):
    """A child process that runs a module of the project. `command` is the module and its arguments."""

    def __init__(  # noqa: PLR0913 - the parameters of Child, and three more
        self,
        fork_server: ForkServer,
        name: str,
        command: list[str],
        *,
        log: Path,
        env: Mapping[str, str],
        mark: int | None = None,
        output: Path | None = None,
    ) -> None:
        super().__init__(name, command, log=log, env=env, cwd=ROOT)
        self._fork_server = fork_server
        self._mark = mark
        self._output = output or log

    def _spawn(self, _: IO[bytes]) -> Any:
        pid = self._fork_server.fork(self.command, output=self._output, log=self.log, env=self.env, mark=self._mark)
        return _Process(pid)


class _Process:
    """The part of the interface of subprocess.Popen that `Child` uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is not None:
            return self.returncode
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _main() -> None:
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # keep the garbage collector from copying shared pages
    told, tell = os.pipe()
    for line in sys.stdin:
        middle = os.fork()
        if not middle:
            _fork_again(json.loads(line), tell)
        os.waitpid(middle, 0)  # then the tests are the parent of the new process
        sys.stdout.buffer.write(os.read(told, 20))
        sys.stdout.flush()


def _fork_again(wanted: dict[str, Any], tell: int) -> None:
    middle = os.getpid()
    pid = os.fork()
    if pid:
        os.write(tell, b"%d\n" % pid)
        os._exit(0)
    while os.getppid() == middle:  # PDEATHSIG must refer to the tests, and not to the middle process
        os.sched_yield()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if wanted["mark"] is not None:
        set_mark(wanted["mark"])
    os.setsid()
    for number, path in enumerate((os.devnull, wanted["output"], wanted["log"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv = [wanted["module"], *wanted["arguments"]]
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
    sys.exit()


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _main()
