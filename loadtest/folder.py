"""The folder for the files of a run."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.command import Unusable
from ops.servers.endpoints import Folder

LOCK = "lock"
OURS = frozenset(
    {"stub.jsonl", "stub.log", "stub-server.log", "run.jsonl", "run.log", "report.json", "report.html", "system"}
)


@contextmanager
def emptied(path: Path) -> Iterator[None]:
    """Lock the folder for one run, and remove the files of an earlier run.

    Raises Unusable if another run has locked the folder, or if it contains other files; then nothing is removed.
    """
    if path.exists() and not path.is_dir():
        raise Unusable(f"{path} is a file: name a folder for the report.")
    with Folder(path).locked():
        there = sorted(each.name for each in path.iterdir() if each.name != LOCK)
        if others := [name for name in there if name not in OURS]:
            raise Unusable(f"{path} contains {others[0]!r}, which no run has written: name an empty or a new folder.")
        for name in there:
            _remove(path / name)
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
