"""Installs Debian packages by apt-get where we are root, saying so first."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.command import Unusable, run
from ops.files import lock_file

SERVICES = {
    "rabbitmq-server": "rabbitmq-server.service",
    "erlang-base": "epmd.socket epmd.service",
    "redis-server": "redis-server.service",
    "nginx-light": "nginx.service",
    "docker-registry": "docker-registry.service",
}
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by Sluice's `make up` while it installs, and removed by it.\nexit 101\n"
# Of two installations at once, one would remove the other's POLICY.
LOCK = Path("/run/sluice-apt.lock")
# Unattended upgrades, for example after a boot, take some minutes.
BUSY_DEADLINE_S = 300.0
BUSY_POLL_S = 2.0
# Time to download some hundred megabytes over a slow line.
APT_TIMEOUT_S = 1800.0
# Stopping a server that was just installed takes longest.
QUERY_TIMEOUT_S = 120.0
# Older versions of apt do not name the process.
BUSY = re.compile(
    r"Could not get lock (?P<path>\S+?)(\. It is held by process (?P<pid>\d+) \((?P<name>[^)]*)\)| - open|$)",
    re.MULTILINE,
)


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages without letting them start a server. Unusable when this is not possible here."""
    names = " ".join(packages)
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise Unusable(f"Missing on this machine: install {names} (the names of Debian's packages) and run this again.")
    if os.geteuid() != 0:
        raise Unusable(
            f"Missing on this machine: run `sudo apt-get install {names}` (or this command as root), then this again."
        )
    print(f"Missing here: {names}. Installing by apt-get, which starts no server here.", flush=True)
    with _alone(), _no_service_starts():
        new = [name for name in packages if not _installed(name)]
        if not all(_has_candidate(name) for name in packages):
            _apt(apt_get, "update")
        try:
            _apt(apt_get, "install", *packages)
        except Unusable:  # an old list names files that the archive has since replaced
            _apt(apt_get, "update")
            _apt(apt_get, "install", *packages)
    _disable_services(new)


def _apt(apt_get: str, verb: str, *packages: str) -> None:
    """Run apt-get, again while another program holds one of its locks. Unusable if it fails, or stays locked.

    DPkg::Lock::Timeout is not used: it covers only one of the three locks.
    """
    words = f"apt-get {' '.join((verb, *packages))}"
    end_s = time.monotonic() + BUSY_DEADLINE_S
    said = ""
    while True:
        done = _apt_once(apt_get, verb, packages)
        if done.returncode == 0:
            return
        busy = BUSY.search(done.stdout)
        if busy is None:
            reason = (done.stdout.strip().splitlines() or ["no output"])[-1]
            raise Unusable(f"`{words}` failed ({reason}): run it by hand and then this again.")
        who = f"{busy['name']} (process {busy['pid']})" if busy["pid"] else "another program"
        if time.monotonic() > end_s:
            raise Unusable(
                f"`{words}` cannot run while {who} uses the package manager, for {BUSY_DEADLINE_S:.0f} s now "
                f"({busy['path']}): run this again when that has ended."
            )
        if who != said:
            print(f"Waiting for {who}, which uses the package manager, {BUSY_DEADLINE_S:.0f} s at most.", flush=True)
            said = who
        time.sleep(BUSY_POLL_S)


def _apt_once(apt_get: str, verb: str, packages: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [apt_get, verb, "--yes", "--quiet=2"]
    if packages:
        command += ["--no-install-recommends", *packages]
    # LC_ALL: what it says of a lock is read
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return run(*command, timeout_s=APT_TIMEOUT_S, stderr=subprocess.STDOUT, env=environment)


def _installed(package: str) -> bool:
    return "install ok installed" in _output("dpkg-query", "--show", "--showformat=${Status}", package)


def _has_candidate(package: str) -> bool:
    policy = _output("apt-cache", "policy", package)
    return "Candidate:" in policy and "Candidate: (none)" not in policy


def _output(*command: str) -> str:
    return run(*command, timeout_s=QUERY_TIMEOUT_S).stdout


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    lock = lock_file(LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's packages start their server on the default port; a policy-rc.d that answers 101 forbids it."""
    ours = not POLICY.exists() or POLICY.read_text() == POLICY_TEXT  # the latter: left by a run that was killed
    if ours:
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _disable_services(packages: Sequence[str]) -> None:
    """With systemd, the services that we installed would start at the next boot."""
    units = " ".join(SERVICES.get(package, "") for package in packages).split()
    if units and Path("/run/systemd/system").exists():
        _output("systemctl", "disable", "--now", *units)
