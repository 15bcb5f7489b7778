"""Root file systems of newer Debian suites than this machine's: made by debootstrap, once, and kept.

They are complete or absent, each by its suite and a sum of what is in it.
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

# of Debian's package debian-archive-keyring
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TIMEOUT_S = 1800.0  # some hundred megabytes over a slow line
LIST_TIMEOUT_S = 60.0  # it only reads local files
SCRIPT = "sid"  # older debootstraps do not know the suite's name; sid's script fits every suite that is newer


def root(suite: str, packages: Sequence[str]) -> Path:
    """The root file system with these packages, built if need be, in about a minute. Unusable if it cannot be built."""
    if os.geteuid() != 0:
        raise Unusable(f"A root file system of Debian {suite} is made by debootstrap: run this as root.")
    folder = cache() / name(suite, packages)
    with locked(folder):
        if not folder.exists():
            print(f"Making a root file system of Debian {suite} with {', '.join(packages)}, once, in {folder}.")
            _build(folder, suite, packages)
    return folder


def name(suite: str, packages: Sequence[str]) -> str:
    """What a root file system is kept by."""
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
    # without the keyring debootstrap would only warn, and install what nobody has signed
    signed = [f"--keyring={KEYRING}", "--force-check-gpg"]
    options = ["--variant=minbase", f"--include={','.join(packages)}", *signed]
    # In mounts of its own: what debootstrap mounts in there cannot stay behind, whatever ends it.
    command = ["unshare", "--mount", "debootstrap", *options, suite, str(folder), _mirror(), SCRIPT]
    done = run(*command, timeout_s=TIMEOUT_S, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Unusable(f"debootstrap of {suite} failed; it said last:\n" + "\n".join(done.stdout.splitlines()[-5:]))


def _mirror() -> str:
    """The Debian mirror that this machine's apt is configured with."""
    formats = ["--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listed = run("apt-get", "indextargets", *formats, timeout_s=LIST_TIMEOUT_S)
    for line in listed.stdout.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise Unusable(
        "apt-get is configured with no Debian mirror that it has lists of: run `apt-get update`, on a Debian machine."
    )
