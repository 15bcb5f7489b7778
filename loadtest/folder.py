"""The folder that a run's files are kept in."""

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
    """Hold the folder for one run, without what an earlier one left there.

    Unusable if another run has it, or if it holds anything that no run has written: then nothing is removed.
    """
    if path.exists() and not path.is_dir():
        raise Unusable(f"{path} is a file: name a folder for the report.")
    with Folder(path).locked():
        there = sorted(each.name for each in path.iterdir() if each.name != LOCK)
        if others := [name for name in there if name not in OURS]:
            raise Unusable(f"{path} holds {others[0]!r}, which is no report's: name an empty or a new folder.")
        for name in there:
            _remove(path / name)
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
