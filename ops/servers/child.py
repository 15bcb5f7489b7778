"""A child process that never outlives its parent, and waiting for a condition."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from ops.command import Unusable
from ops.files import append_private

POLL_S = 0.05


class Child:
    """A process in its own session, so that Ctrl-C in a terminal reaches only the parent.

    Start a child from a thread that lives at least as long as the child: Linux sends the parent-death signal when the
    *thread* that started the child ends.
    """

    def __init__(
        self, name: str, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.env = dict(env)
        self.cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError before start()."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True from start() until the process has ended. The process is not reaped, so its group id is not reused."""
        process = self._process
        return process is not None and process.returncode is None and not _changed(process.pid, os.WEXITED)

    def start(self) -> None:
        """Start the process, and append its output to the log. Raises Unusable if the program cannot be run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(append_private(self.log), "ab") as output:
            try:
                self._process = self._spawn(output)
            except OSError as exc:
                raise Unusable(f"{self.name} cannot be run: {exc}.") from exc

    def stop(self, deadline_s: float = 20.0) -> bool:
        """Send SIGTERM, and SIGKILL after `deadline_s` seconds. Then kill the rest of the process group.

        Returns False if the process itself needed the SIGKILL.
        """
        if self.alive:
            self.signal(signal.SIGCONT)  # a suspended process would not handle SIGTERM
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                until(lambda: not self.alive, deadline_s, f"the end of {self.name}")
        ended = not self.alive
        self.kill()
        return ended

    def wait(self) -> int:
        """Wait for the end of the process and reap it. Returns the exit status; -N if signal N ended the process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.wait()

    def kill(self) -> None:
        """Send SIGKILL to the process group, and reap the process. Does nothing if the process was already reaped."""
        if self._process is None or self._process.returncode is not None:
            return
        # before wait(): after it, the kernel may reuse the group id for other processes
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        if self.alive:
            os.kill(self.pid, number)

    def suspend(self) -> None:
        """Send SIGSTOP, and wait until all threads are stopped. Connections stay open, but nothing is answered."""
        self.signal(signal.SIGSTOP)
        until(lambda: _changed(self.pid, os.WSTOPPED), 10.0, f"suspending {self.name}")

    def resume(self) -> None:
        """Send SIGCONT."""
        self.signal(signal.SIGCONT)

    def last_lines(self, count: int = 8) -> str:
        """The last lines of the log, for an error message."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def ready(self, condition: Callable[[], bool], deadline_s: float) -> None:
        """Wait until condition() holds.

        Raises Unusable with the end of the log if the process ends, or after `deadline_s` seconds.
        """
        try:
            until(lambda: not self.alive or condition(), deadline_s, self.name)
        except TimeoutError:
            raise Unusable(
                f"{self.name} did not answer within {deadline_s:.0f} s; its log {self.log} ends:\n{self.last_lines()}"
            ) from None
        if not self.alive:
            raise Unusable(f"{self.name} ended while starting; its log {self.log} ends:\n{self.last_lines()}")

    def _spawn(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [*_death_signal(), *self.command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=self.env, cwd=self.cwd, start_new_session=True,
        )  # fmt: skip


def until(condition: Callable[[], bool], deadline_s: float, what: str, poll_s: float = POLL_S) -> None:
    """Poll every `poll_s` seconds until condition() holds.

    Raises TimeoutError after `deadline_s` seconds; `what` names the operation in its message.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took more than {deadline_s:.0f} s")
        time.sleep(poll_s)


def survives_us() -> str | None:
    """Why children would outlive a SIGKILL of this process, or None if the kernel ends them."""
    return (
        None
        if _death_signal()
        else "without Linux's setpriv, processes outlive a kill -9 of this one; end it with Ctrl-C"
    )


def _death_signal() -> list[str]:
    # Not prctl() in a preexec_fn, which runs Python after fork() and is unsafe in a process with threads.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _changed(pid: int, event: int) -> bool:
    """Whether the child has ended (WEXITED) or is stopped (WSTOPPED). Does not reap the child."""
    return os.waitid(os.P_PID, pid, event | os.WNOHANG | os.WNOWAIT) is not None
