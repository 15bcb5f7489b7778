"""Known file names in shared folders: links and files of other users are neither followed nor used."""

import errno
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ops import apt, files, tools
from ops.command import Unusable
from ops.credentials import load_or_make
from ops.servers import endpoints
from ops.servers.child import Child
from ops.servers.ports import free_ports

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like /tmp, and next to it a folder and a file to which an attacker's links point."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("as it was")
    return folder


def ports(shared: Path) -> Path:
    return shared / f"sluice-ports-{os.getuid()}"


def use_ports(_: Path) -> None:
    free_ports(1)


def use_local(path: Path) -> None:
    with endpoints.Folder(path).locked():
        pass


def use_cache(path: Path) -> None:
    with tools.locked(path / "program"):
        pass


USERS_OF_FOLDERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "ports": (ports, use_ports),
    "the system's": (lambda shared: shared / ".local", use_local),
    "the cache": (lambda shared: shared / "cache", use_cache),
}


@pytest.mark.parametrize(("place", "use"), USERS_OF_FOLDERS.values(), ids=USERS_OF_FOLDERS)
def test_linked_folder_is_refused(shared: Path, place: Callable[[Path], Path], use: Callable[[Path], None]) -> None:
    place(shared).symlink_to(shared.parent / "victim")
    with pytest.raises((PermissionError, Unusable), match="link"):
        use(place(shared))
    assert [each.name for each in (shared.parent / "victim").iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize(("place", "use"), USERS_OF_FOLDERS.values(), ids=USERS_OF_FOLDERS)
def test_folder_of_another_user_is_refused(
    shared: Path, place: Callable[[Path], Path], use: Callable[[Path], None]
) -> None:
    place(shared).mkdir()
    os.chown(place(shared), NOBODY, NOBODY)
    with pytest.raises((PermissionError, Unusable), match="another user"):
        use(place(shared))
    assert not list(place(shared).iterdir())


@pytest.mark.parametrize("place", [ports, lambda shared: shared / ".local"])
def test_folder_open_to_others_is_made_private(shared: Path, place: Callable[[Path], Path]) -> None:
    place(shared).mkdir()
    place(shared).chmod(0o777)
    files.private_folder(place(shared))
    assert stat.S_IMODE(place(shared).stat().st_mode) == 0o700


def test_folder_of_programs_is_made_writable_only_for_its_owner(shared: Path) -> None:
    (shared / "cache").mkdir()
    (shared / "cache").chmod(0o777)
    files.trusted_folder(shared / "cache")
    assert stat.S_IMODE((shared / "cache").stat().st_mode) == 0o755


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a link": lambda path, to: path.symlink_to(to),
    "a link to nothing": lambda path, to: path.symlink_to(to.with_name("new")),
    "a second name": lambda path, to: path.hardlink_to(to),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
}
USERS_OF_FILES: dict[str, Callable[[Path], object]] = {
    "lock": files.lock_file,
    "log": files.append_private,
    "a child's log": lambda path: Child("child", ["true"], log=path, env={}).start(),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("use", USERS_OF_FILES.values(), ids=USERS_OF_FILES)
def test_file_that_is_a_link_pipe_or_folder_is_refused(
    shared: Path, use: Callable[[Path], object], link: Callable[[Path, Path], None]
) -> None:
    victim = shared.parent / "victim" / "file"
    link(shared / "name", victim)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the subclass varies; the errno is asserted below
        use(shared / "name")
    assert refused.value.errno in {errno.EPERM, errno.EISDIR, errno.ENXIO}
    assert victim.read_text() == "as it was"
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("name", ["a link", "a link to nothing", "a second name"])
def test_write_private_replaces_a_link(shared: Path, name: str) -> None:
    victim = shared.parent / "victim" / "file"
    LINKS[name](shared / "name", victim)
    files.write_private(shared / "name", "ours")
    assert (shared / "name").read_text() == "ours"
    assert stat.S_IMODE((shared / "name").lstat().st_mode) == 0o600
    assert victim.read_text() == "as it was"
    assert not victim.with_name("new").exists()


def test_readable_credentials_are_made_private(tmp_path: Path) -> None:
    path = tmp_path / "credentials.env"
    load_or_make(path)
    path.chmod(0o644)
    load_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_apt_lock_that_is_a_link_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = shared.parent / "victim" / "file"
    (shared / "lock").symlink_to(victim)
    monkeypatch.setattr(apt, "LOCK", shared / "lock")
    with pytest.raises(PermissionError), apt._alone():  # noqa: SLF001 - the lock of an installation
        pass
    assert victim.read_text() == "as it was"


def test_refused_link_is_reported_in_one_sentence(shared: Path) -> None:
    ports(shared).symlink_to(shared.parent / "victim")
    script = (
        "import tempfile; tempfile.tempdir = " + repr(str(shared)) + "\n"
        "from ops.command import command_line; from ops.servers.ports import free_ports\n"
        "command_line(lambda: free_ports(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "This user may not use" in done.stderr
    assert "(it is a link" in done.stderr


# Code that opens a known name in a shared folder, or creates a file, without ops.files.
SHARED = re.compile(r"gettempdir\(|[\"'](/tmp|/var/tmp|/run|/dev/shm)/")
CREATING = re.compile(r"os\.open\([^)]*O_CREAT|\.open\(\"[wax]")
# reason for each exception
ALLOWED = {
    "ops/files.py": "the one place",
    "ops/servers/ports.py": "the folder of ports, by ops.files",
    "ops/apt.py": "the lock of apt, by ops.files",
    "ops/validate": "paths in manifests",
    "minicluster/stand_ins/ingress_controller": "inside a container, which has its own /tmp",
    "tests/e2e/burst.py": "in build/, which is the project's",
    "minicluster/components.py": "inside a mount namespace of its own",
    "minicluster/layout.py": "inside a mount namespace of its own",
    "minicluster/lifecycle.py": "in the cluster's state folder",
    "minicluster/node.py": "inside a mount namespace of its own",
    "loadtest/ledger.py": "in the report's folder, which is private",
    "apps": "a pod's own /tmp, named by its manifest",
}


def test_only_ops_files_creates_files_in_shared_folders() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "ops/*.py", "bench/*.py", "loadtest/*.py", "apps/*.py", "minicluster/*.py",
         "tests/e2e/*.py", "tests/chaos/__main__.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {
        name
        for name in listed.stdout.split()
        if not name.startswith(tuple(ALLOWED))
        for line in (ROOT / name).read_text().splitlines()
        if SHARED.search(line) or CREATING.search(line)
    }
    assert found == set()
