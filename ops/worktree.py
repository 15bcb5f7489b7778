"""The files of another commit, to run beside this one's."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.command import ROOT, output

TIMEOUT_S = 120  # git writes every file of the commit


@contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into the folder, which is removed at the end. Unusable, with git's reason, if it cannot be."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed; pruning makes git forget it too
    _git("worktree", "prune")
    _git("worktree", "add", "--force", "--detach", str(folder), ref)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    output("git", *arguments, timeout_s=TIMEOUT_S, cwd=ROOT)
