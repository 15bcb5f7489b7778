"""How a command ends where it cannot do what it is asked: one sentence on standard error, and exit status 1.

Unusable            says itself what is missing, in use or refused
TimeoutError        of ops.servers.child.until: says what took too long
SubprocessError     a program failed, or took too long
OSError             the machine refuses (REFUSALS), or has no such program; any other is a defect, and stays as it is
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable

from ops.servers.child import Unusable

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
Refusal = Unusable | OSError | subprocess.SubprocessError
REFUSAL = (Unusable, OSError, subprocess.SubprocessError)


def sentence(exc: Refusal) -> str:
    """Why the command ends. Raises the error itself where it is a defect, for which a traceback says more."""
    if isinstance(exc, Unusable):
        return str(exc)
    if isinstance(exc, subprocess.CalledProcessError):
        return f"`{_words(exc.cmd)}` failed with status {exc.returncode}: {_last_line(exc.stderr or exc.stdout)}"
    if isinstance(exc, subprocess.TimeoutExpired):
        return f"`{_words(exc.cmd)}` took longer than {exc.timeout:g} s and was stopped."
    if isinstance(exc, OSError) and exc.errno in REFUSALS:
        # an error of writing to an open file does not name the file
        return REFUSALS[exc.errno].format(place=exc.filename or "a file", why=exc.strerror)
    if isinstance(exc, FileNotFoundError) and isinstance(exc.filename, str) and os.sep not in exc.filename:
        return f"{exc.filename} is not installed, or not on the PATH."
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"{exc}."
    raise exc


def command_line(main: Callable[[], None]) -> None:
    """Run a command, and end it so."""
    try:
        main()
    except REFUSAL as exc:
        sys.exit(sentence(exc))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _words(command: object) -> str:
    parts = command if isinstance(command, list | tuple) else [command]
    return " ".join([os.path.basename(str(parts[0])), *map(str, parts[1:4])])  # noqa: PTH119 - of a word, not of a file


def _last_line(said: str | bytes | None) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
    return (text.strip().splitlines() or ["it said nothing."])[-1].strip()
