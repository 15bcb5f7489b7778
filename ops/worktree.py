"""The files of another commit, to run beside this one's."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.servers.endpoints import PROJECT


@contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Path]:
    """The files of a commit in that folder, which is this one's. Raises SystemExit with what git says against it."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed; pruning makes git forget it too
    _git("worktree", "prune")
    _git("worktree", "add", "--force", "--detach", str(folder), ref)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, check=False, capture_output=True, text=True)  # noqa: S603, S607
    if done.returncode:
        sys.exit(f"`git {' '.join(arguments[:2])}` failed: {done.stderr.strip().splitlines()[-1]}")
