"""Files and folders that no other user can read, replace, or have put there before: made and opened in this one way.

A folder of a known name in a shared place, as /tmp is one, may be there already, as another user's or as a link to
anywhere; root would write through it. So nothing here follows a link, and what is there must be ours.

PermissionError     it is a link, no ordinary file or folder, or another user's (ops.command makes a sentence of it)
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWNER_ALONE = 0o700
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
# of open: the last part of the name is a link; it is one, or no folder
_LINKS = {errno.ELOOP, errno.ENOTDIR}


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, unless it is there; the folders above it as usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _own_folder(path, _OWNER_ALONE, (os.geteuid(),)) as folder:
        if stat.S_IMODE(os.fstat(folder).st_mode) != _OWNER_ALONE:
            os.fchmod(folder, _OWNER_ALONE)
    return path


def trusted_folder(path: Path) -> Path:
    """Make a folder that others may read, unless it is there. What is kept in it is run: only its owner may write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _own_folder(path, 0o755, (os.geteuid(), 0)) as folder:
        mode = os.fstat(folder).st_mode
        if mode & _WRITABLE_BY_OTHERS:
            _require_owner(path, folder, (os.geteuid(),))  # nobody else can close it
            os.fchmod(folder, stat.S_IMODE(mode) & ~_WRITABLE_BY_OTHERS)
    return path


def open_private(path: Path, flags: int) -> int:
    """Open a file, making it if it is not there, for its owner alone. The descriptor."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end
        file = os.open(path, flags | os.O_CREAT | os.O_NONBLOCK | _NO_LINK, 0o600)
    except OSError as exc:
        raise (_refused(path, "it is a link") if exc.errno in _LINKS else exc) from None
    there = os.fstat(file)
    if why := _foreign(there):
        os.close(file)
        raise _refused(path, why)
    os.set_blocking(file, True)
    if there.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        os.fchmod(file, 0o600)
    return file


def append_private(path: Path) -> int:
    """A file to append to, as a log. The descriptor."""
    return open_private(path, os.O_WRONLY | os.O_APPEND)


def lock_file(path: Path) -> int:
    """A file for fcntl.flock; what is in it stays. The descriptor."""
    return open_private(path, os.O_RDWR)


def write_private(path: Path, text: str) -> None:
    """Write a new file in the place of whatever is there, which only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600), "w") as file:
        file.write(text)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. BlockingIOError where another process does."""
    lock = lock_file(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextmanager
def _own_folder(path: Path, mode: int, owners: tuple[int, ...]) -> Iterator[int]:
    """The descriptor of a folder of one of these owners, made if it is not there."""
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
    except OSError as exc:
        raise (_refused(path, "it is a link or no folder") if exc.errno in _LINKS else exc) from None
    try:
        _require_owner(path, folder, owners)
        yield folder
    finally:
        os.close(folder)


def _require_owner(path: Path, folder: int, owners: tuple[int, ...]) -> None:
    if os.fstat(folder).st_uid not in owners:
        raise _refused(path, "it belongs to another user")


def _foreign(there: os.stat_result) -> str | None:
    """Why other users may be able to change an open file; None where they cannot."""
    # with a second name it may be in a place that others can reach
    if not stat.S_ISREG(there.st_mode) or there.st_nlink != 1:
        return "it is no file of its own"
    return None if there.st_uid == os.geteuid() else "it belongs to another user"


def _refused(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))
