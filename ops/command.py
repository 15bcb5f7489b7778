"""Runs programs. Ends a command that fails for a known reason with one sentence on standard error and exit status 1.

Unusable            its message is that sentence: the reason, and what to do
TimeoutError        a wait reached its deadline; the message names the condition
SubprocessError     a program failed or timed out
OSError             the errno is one of REFUSALS, or a program is not installed. Any other OSError is a defect, and
                    ends the command with a traceback

This module imports only the standard library, as it also runs before any package is installed.
"""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = 130
_FULL = "No space is left on the disk of {place}: free some, and run this again."
_NOT_OURS = "This user may not use {place} ({why}): change its owner, or run this as the user who owns it."
_TOO_MANY = "Too many files are open ({why}): raise the limit (`ulimit -n`), and run this again."
REFUSALS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "{place} cannot be written ({why}): run this on a writable file system.",
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
}


class Unusable(Exception):
    """A command cannot continue. The message is one sentence with the reason and what to do."""


Refusal = Unusable | OSError | subprocess.SubprocessError
REFUSAL = (Unusable, OSError, subprocess.SubprocessError)


def command_line(main: Callable[[], None]) -> None:
    """Run a command. It exits with a sentence and status 1 after a known error, and with status 130 after Ctrl-C."""
    try:
        main()
    except REFUSAL as exc:
        sys.exit(sentence(exc))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def sentence(exc: Refusal) -> str:
    """The error message for a known error. Raises `exc` itself if it is a defect, which needs its traceback."""
    if isinstance(exc, Unusable):
        return str(exc)
    if isinstance(exc, subprocess.CalledProcessError):
        return f"`{_words(exc.cmd)}` failed with status {exc.returncode}: {_last_line(exc.stderr or exc.stdout)}"
    if isinstance(exc, subprocess.TimeoutExpired):
        # rounded: the timeout may be the rest of a longer deadline
        return f"`{_words(exc.cmd)}` took longer than {round(exc.timeout, 1):g} s and was stopped."
    if isinstance(exc, OSError) and exc.errno in REFUSALS:
        # the exception of a write to an open file has no filename
        return REFUSALS[exc.errno].format(place=exc.filename or "a file", why=exc.strerror)
    if isinstance(exc, FileNotFoundError) and isinstance(exc.filename, str) and os.sep not in exc.filename:
        return f"{exc.filename} is not installed, or not on the PATH."
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"{exc}."
    raise exc


def run(  # noqa: PLR0913 - all but the command are keyword arguments
    *command: str | Path, timeout_s: float, text: str | None = None, env: Mapping[str, str] | None = None,
    cwd: Path = ROOT, stdout: int | None = subprocess.PIPE, stderr: int | None = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a program, and return its result whatever its exit status is.

    `text` is the standard input; `env` extends this process's environment. Raises Unusable if the program is not
    installed, or if it takes longer than `timeout_s` seconds.
    """
    try:
        return subprocess.run(  # noqa: S603 - no shell; every caller writes its own command
            command, input=text, stdout=stdout, stderr=stderr, text=True, timeout=timeout_s, check=False, cwd=cwd,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    except FileNotFoundError:
        raise Unusable(f"{Path(command[0]).name} is not installed, or not on the PATH.") from None
    except subprocess.TimeoutExpired as exc:
        raise Unusable(sentence(exc)) from None


def output(
    *command: str | Path, timeout_s: float, text: str | None = None, env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> str:  # fmt: skip
    """Run a program, and return its standard output.

    Raises Unusable if it fails or times out; the message of a failure ends with the last line that it printed.
    """
    done = run(*command, timeout_s=timeout_s, text=text, env=env, cwd=cwd)
    if done.returncode != 0:
        raise Unusable(f"`{_words(command)}` failed: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def show(*command: str | Path, timeout_s: float, text: str | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a program whose output goes to the terminal. Raises Unusable if it fails or times out."""
    sys.stdout.flush()
    done = run(*command, timeout_s=timeout_s, text=text, env=env, stdout=None, stderr=None)
    if done.returncode != 0:
        raise Unusable(f"`{_words(command)}` failed, see above.")


def answers(*command: str | Path, timeout_s: float = 10) -> bool:
    """Whether a program is installed and exits with status 0 within `timeout_s` seconds."""
    if shutil.which(str(command[0])) is None:
        return False
    try:
        output(*command, timeout_s=timeout_s)
    except Unusable:
        return False
    return True


def _words(command: object) -> str:
    """The name of a program and its first arguments."""
    parts = command if isinstance(command, list | tuple) else [command]
    return " ".join([Path(str(parts[0])).name, *map(str, parts[1:4])])


def _last_line(text: str | bytes | None) -> str:
    text = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return (text.strip().splitlines() or ["no output."])[-1].strip()
