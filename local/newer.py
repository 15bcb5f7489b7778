"""A newer RabbitMQ (4.3 or later) beside the machine's own: a root file system of a newer Debian suite, for chroot.

Built once, complete or absent, into .local/forky, or into the folder that SLUICE_CACHE names.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from local.child import Unusable
from local.endpoints import PROJECT
from local.programs import apt_install, find

SUITE = "forky"
SCRIPT = "sid"  # older debootstraps do not know the suite's name; sid's script fits every suite that is newer
PACKAGES = "rabbitmq-server,ca-certificates"


def ensure() -> Path:
    """The root file system, built if need be, which takes about a minute. Unusable if it cannot be built here."""
    if os.geteuid() != 0:
        raise Unusable("A newer RabbitMQ is made by debootstrap and started by chroot: run this as root.")
    cache = Path(os.environ.get("SLUICE_CACHE") or PROJECT / ".local").resolve()
    root = cache / SUITE
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{SUITE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test runs that start at once, one builds and the other waits for it
        if not root.exists():
            print(f"Making a root file system with the RabbitMQ of Debian {SUITE}, once, in {root}.", flush=True)
            _build(cache, root)
    return root


def _build(cache: Path, root: Path) -> None:
    if find("debootstrap") is None:
        apt_install(["debootstrap"])
    for left_over in cache.glob(f"{SUITE}.build-*"):
        shutil.rmtree(left_over)
    folder = Path(tempfile.mkdtemp(prefix=f"{SUITE}.build-", dir=cache))
    _debootstrap(folder)
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    folder.chmod(0o755)
    folder.rename(root)


def _debootstrap(folder: Path) -> None:
    options = ["--variant=minbase", f"--include={PACKAGES}"]
    # In mounts of its own: what debootstrap mounts in there cannot stay behind, whatever ends it.
    command = ["unshare", "--mount", "debootstrap", *options, SUITE, str(folder), _mirror(), SCRIPT]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise Unusable(f"debootstrap of {SUITE} failed; it said last:\n" + "\n".join(done.stdout.splitlines()[-5:]))


def _mirror() -> str:
    """The Debian mirror that this machine's apt is configured with."""
    formats = ["--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(["apt-get", "indextargets", *formats], capture_output=True, text=True, check=False)  # noqa: S603, S607
    for line in listed.stdout.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise Unusable(
        "apt-get is configured with no Debian mirror that it has lists of: run `apt-get update`, on a Debian machine."
    )


def main() -> None:
    """Print the path of the root file system, and nothing else, to standard output."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            root = ensure()
    except Unusable as exc:
        sys.exit(str(exc))
    print(root)


if __name__ == "__main__":
    main()
