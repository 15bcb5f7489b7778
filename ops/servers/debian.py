"""Builds root file systems of newer Debian suites than this machine's with debootstrap, and caches them.

A cached file system is always complete. Its name contains the suite and a hash of the list of packages.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ops.apt import apt_install
from ops.command import Unusable, run
from ops.servers.programs import find
from ops.tools import cache, locked

# from Debian's package debian-archive-keyring
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TIMEOUT_S = 1800.0  # enough to download some hundred megabytes over a slow connection
LIST_TIMEOUT_S = 60.0  # apt-get indextargets only reads local files
SCRIPT = "sid"  # an older debootstrap has no script for the suite; the script of sid works for every newer suite


def root(suite: str, packages: Sequence[str]) -> Path:
    """The root file system with these packages. Built at the first use, which takes about a minute.

    Raises Unusable if this process is not root, or the build fails.
    """
    if os.geteuid() != 0:
        raise Unusable(f"A root file system of Debian {suite} is made by debootstrap: run this as root.")
    folder = cache() / name(suite, packages)
    with locked(folder):
        if not folder.exists():
            print(f"Building a root file system of Debian {suite} with {', '.join(packages)} once in {folder}.")
            _build(folder, suite, packages)
    return folder


def name(suite: str, packages: Sequence[str]) -> str:
    """The name of a root file system in the cache."""
    return f"{suite}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"


def _build(root: Path, suite: str, packages: Sequence[str]) -> None:
    missing = [] if find("debootstrap") else ["debootstrap"]
    missing += [] if KEYRING.exists() else ["debian-archive-keyring"]
    if missing:
        apt_install(missing)
    for left_over in root.parent.glob(f"{root.name}.build-*"):
        shutil.rmtree(left_over)
    folder = Path(tempfile.mkdtemp(prefix=f"{root.name}.build-", dir=root.parent))
    _debootstrap(folder, suite, packages)
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    folder.chmod(0o755)
    folder.rename(root)


def _debootstrap(folder: Path, suite: str, packages: Sequence[str]) -> None:
    # without the keyring, debootstrap would only warn and install unsigned packages
    signed = [f"--keyring={KEYRING}", "--force-check-gpg"]
    options = ["--variant=minbase", f"--include={','.join(packages)}", *signed]
    # In a mount namespace of its own: debootstrap's mounts disappear even if it is killed.
    command = ["unshare", "--mount", "debootstrap", *options, suite, str(folder), _mirror(), SCRIPT]
    done = run(*command, timeout_s=TIMEOUT_S, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Unusable(f"debootstrap of {suite} failed; its output ends:\n" + "\n".join(done.stdout.splitlines()[-5:]))


def _mirror() -> str:
    """The Debian mirror that this machine's apt is configured with. Raises Unusable if there is none."""
    formats = ["--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listed = run("apt-get", "indextargets", *formats, timeout_s=LIST_TIMEOUT_S)
    for line in listed.stdout.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise Unusable("apt-get has no package lists of a Debian mirror: run `apt-get update` on a Debian machine.")
