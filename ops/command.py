"""Runs programs, and ends a command that cannot do its work: one sentence on standard error, and exit status 1.

Unusable            the sentence itself: what is missing, in use or refused, and what to do
TimeoutError        from a wait with a deadline: says what took too long
SubprocessError     a program failed, or took too long
OSError             the machine refuses (REFUSALS), or has no such program. Any other is a defect, with a traceback

Needs only the standard library: it also runs before anything is installed.
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
_NOT_OURS = "{place} may not be used by this user ({why}): make it yours, or run this as the user who owns it."
_TOO_MANY = "Too many files are open ({why}): raise the limit (`ulimit -n`), and run this again."
REFUSALS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "{place} cannot be written ({why}): run this where it can be.",
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
}


class Unusable(Exception):
    """What keeps a command from its work, as one sentence for a person that says what to do."""


Refusal = Unusable | OSError | subprocess.SubprocessError
REFUSAL = (Unusable, OSError, subprocess.SubprocessError)


def command_line(main: Callable[[], None]) -> None:
    """Run a command. What it cannot do ends it by a sentence, Ctrl-C by status 130."""
    try:
        main()
    except REFUSAL as exc:
        sys.exit(sentence(exc))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def sentence(exc: Refusal) -> str:
    """Why the command ends. Raises the error itself where it is a defect: its traceback says more."""
    if isinstance(exc, Unusable):
        return str(exc)
    if isinstance(exc, subprocess.CalledProcessError):
        return f"`{_words(exc.cmd)}` failed with status {exc.returncode}: {_last_line(exc.stderr or exc.stdout)}"
    if isinstance(exc, subprocess.TimeoutExpired):
        # it may be what was left of the time
        return f"`{_words(exc.cmd)}` took longer than {round(exc.timeout, 1):g} s and was stopped."
    if isinstance(exc, OSError) and exc.errno in REFUSALS:
        # an error of writing to an open file does not name the file
        return REFUSALS[exc.errno].format(place=exc.filename or "a file", why=exc.strerror)
    if isinstance(exc, FileNotFoundError) and isinstance(exc.filename, str) and os.sep not in exc.filename:
        return f"{exc.filename} is not installed, or not on the PATH."
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"{exc}."
    raise exc


def run(  # noqa: PLR0913 - by name, all but the command
    *command: str | Path, timeout_s: float, text: str | None = None, env: Mapping[str, str] | None = None,
    cwd: Path = ROOT, stdout: int | None = subprocess.PIPE, stderr: int | None = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a program to its end, whatever its exit status. `text` is its standard input, `env` is added to ours.

    Unusable if there is no such program, or it takes too long.
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
    """The standard output of a program. Unusable, with the last line that it printed, if it fails."""
    done = run(*command, timeout_s=timeout_s, text=text, env=env, cwd=cwd)
    if done.returncode != 0:
        raise Unusable(f"`{_words(command)}` failed: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def show(*command: str | Path, timeout_s: float, text: str | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a program whose output the person wants to see. Unusable if it fails."""
    sys.stdout.flush()
    done = run(*command, timeout_s=timeout_s, text=text, env=env, stdout=None, stderr=None)
    if done.returncode != 0:
        raise Unusable(f"`{_words(command)}` failed, see above.")


def answers(*command: str | Path, timeout_s: float = 10) -> bool:
    """Whether a program is there and ends well."""
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
    return (text.strip().splitlines() or ["it said nothing."])[-1].strip()
