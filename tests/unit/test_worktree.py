"""A checkout of a commit in its own folder replaces the leftovers of an earlier run."""

import subprocess
from pathlib import Path

import pytest

from ops import worktree


def test_checkout_of_a_killed_run_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    monkeypatch.setattr(worktree, "ROOT", project)
    folder = tmp_path / "code"
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for command in (
        ["init", "-q", str(project)],
        [*who, "-C", str(project), "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], check=True)
    with worktree.checked_out("HEAD", folder) as left:
        (left / "of-before").touch()
        with worktree.checked_out("HEAD", folder) as code:
            assert not (code / "of-before").exists()
        left.mkdir()  # restores a worktree, which the outer block removes
        subprocess.run(["git", "-C", str(project), "worktree", "add", "--detach", str(left), "HEAD"], check=True)
