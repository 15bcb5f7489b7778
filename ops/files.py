"""Creates and opens files and folders that no other user can read, replace, or have created in advance.

In a shared folder such as /tmp, another user may already have created a folder of a known name, or a symbolic link to
any place, and root would write through the link. So these functions follow no links, and require that existing files
and folders belong to this user.

PermissionError     the path is a link, is not a regular file or folder, or belongs to another user (ops.command turns
                    this error into a sentence)
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
# errors of open() with O_NOFOLLOW for a link; ENOTDIR also if the path is not a folder
_LINKS = {errno.ELOOP, errno.ENOTDIR}


def private_folder(path: Path) -> Path:
    """Create a folder that only its owner can enter, if it does not exist. Parents get the default permissions.

    Raises PermissionError if the path is a link, is not a folder, or belongs to another user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _own_folder(path, _OWNER_ALONE, (os.geteuid(),)) as folder:
        if stat.S_IMODE(os.fstat(folder).st_mode) != _OWNER_ALONE:
            os.fchmod(folder, _OWNER_ALONE)
    return path


def trusted_folder(path: Path) -> Path:
    """Create a folder of programs, if it does not exist. Others may read it; only its owner may write to it.

    Raises PermissionError if the path is a link, is not a folder, or belongs to neither this user nor root.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _own_folder(path, 0o755, (os.geteuid(), 0)) as folder:
        mode = os.fstat(folder).st_mode
        if mode & _WRITABLE_BY_OTHERS:
            _require_owner(path, folder, (os.geteuid(),))  # only the owner can change the mode
            os.fchmod(folder, stat.S_IMODE(mode) & ~_WRITABLE_BY_OTHERS)
    return path


def open_private(path: Path, flags: int) -> int:
    """Open or create a file that only its owner can access, and return the file descriptor.

    Raises PermissionError if the path is a link, is not a regular file, or belongs to another user.
    """
    try:
        # O_NONBLOCK: opening a named pipe would block until its other end is open
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
    """Open a private file to append to, for example a log, and return the file descriptor."""
    return open_private(path, os.O_WRONLY | os.O_APPEND)


def lock_file(path: Path) -> int:
    """Open a private file for fcntl.flock, and return the file descriptor. The content is kept."""
    return open_private(path, os.O_RDWR)


def write_private(path: Path, text: str) -> None:
    """Replace a file by a new one that only its owner can read. It has this mode from its creation on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600), "w") as file:
        file.write(text)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. Raises BlockingIOError if another process holds it."""
    lock = lock_file(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextmanager
def _own_folder(path: Path, mode: int, owners: tuple[int, ...]) -> Iterator[int]:
    """Create a folder if it does not exist, and yield its descriptor. Raises PermissionError for other owners."""
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
    """The reason why other users may be able to change an open file, or None."""
    # a second hard link may be in a folder that others can access
    if not stat.S_ISREG(there.st_mode) or there.st_nlink != 1:
        return "it is not a regular file with a single link"
    return None if there.st_uid == os.geteuid() else "it belongs to another user"


def _refused(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))
