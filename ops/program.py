"""Runs programs, each with a deadline; what goes wrong is one sentence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.command import command_line
from ops.servers.child import Unusable

__all__ = ["ROOT", "Unusable", "answers", "command_line", "output", "show"]
ROOT = Path(__file__).parent.parent


def output(*command: str | Path, timeout_s: float, text: str | None = None, **environment: str) -> str:
    """A program's standard output; `text` is its standard input. Unusable if it fails or takes too long."""
    done = _run(command, timeout_s, text, environment, capture=True)
    if done.returncode != 0:
        raise Unusable(f"`{_words(command)}` failed: {_reason(done.stderr or done.stdout)}")
    return done.stdout


def show(*command: str | Path, timeout_s: float, text: str | None = None, **environment: str) -> None:
    """Run a program whose output the person wants to see. Unusable if it fails or takes too long."""
    sys.stdout.flush()
    if _run(command, timeout_s, text, environment, capture=False).returncode != 0:
        raise Unusable(f"`{_words(command)}` failed, see above.")


def _run(
    command: Sequence[str | Path], timeout_s: float, text: str | None, environment: dict[str, str], *, capture: bool
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - no shell; every caller writes its own command
            command, input=text, capture_output=capture, text=True, timeout=timeout_s, check=False, cwd=ROOT,
            env=os.environ | environment,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unusable(f"{_name(command)} is not installed, or not on the PATH.") from None
    except subprocess.TimeoutExpired:
        raise Unusable(f"`{_words(command)}` took longer than {timeout_s:g} s and was stopped.") from None


def answers(*command: str | Path, timeout_s: float = 10) -> bool:
    """Whether a program is there and ends well."""
    if shutil.which(str(command[0])) is None:
        return False
    try:
        output(*command, timeout_s=timeout_s)
    except Unusable:
        return False
    return True


def _name(command: Sequence[str | Path]) -> str:
    return Path(command[0]).name


def _words(command: Sequence[str | Path]) -> str:
    return " ".join([_name(command), *map(str, command[1:4])])


def _reason(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing."
