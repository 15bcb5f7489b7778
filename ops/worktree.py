"""Checks out another commit beside this one, to compare both."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.command import ROOT, output

TIMEOUT_S = 120  # enough for git to write every file of the commit


@contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into the folder, which is removed at the end. Raises Unusable with git's reason on failure."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed; `prune` removes git's record of it
    _git("worktree", "prune")
    _git("worktree", "add", "--force", "--detach", str(folder), ref)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    output("git", *arguments, timeout_s=TIMEOUT_S, cwd=ROOT)
