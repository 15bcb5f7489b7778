"""Installs Debian packages with apt-get if this process runs as root. Prints the packages first."""

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
# Serializes installations: the first of two concurrent ones to end would remove the POLICY that the other needs.
LOCK = Path("/run/sluice-apt.lock")
# Unattended upgrades, for example after a boot, hold apt's locks for some minutes.
BUSY_DEADLINE_S = 300.0
BUSY_POLL_S = 2.0
# Enough to download some hundred megabytes over a slow connection.
APT_TIMEOUT_S = 1800.0
# The slowest of these commands is systemctl, which stops a server that was just installed.
QUERY_TIMEOUT_S = 120.0
# Error message of apt. Older versions do not name the process that holds the lock.
BUSY = re.compile(
    r"Could not get lock (?P<path>\S+?)(\. It is held by process (?P<pid>\d+) \((?P<name>[^)]*)\)| - open|$)",
    re.MULTILINE,
)


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages without letting them start a server.

    Raises Unusable if there is no apt-get, this process is not root, or apt-get fails.
    """
    names = " ".join(packages)
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise Unusable(f"Missing on this machine: install {names} (names of Debian packages), and run this again.")
    if os.geteuid() != 0:
        raise Unusable(
            f"Missing on this machine: run `sudo apt-get install {names}` (or this command as root), then this again."
        )
    print(f"Missing here: {names}. Installing with apt-get; no server is started.", flush=True)
    with _alone(), _no_service_starts():
        new = [name for name in packages if not _installed(name)]
        if not all(_has_candidate(name) for name in packages):
            _apt(apt_get, "update")
        try:
            _apt(apt_get, "install", *packages)
        except Unusable:  # an outdated package list names files that the archive has since replaced
            _apt(apt_get, "update")
            _apt(apt_get, "install", *packages)
    _disable_services(new)


def _apt(apt_get: str, verb: str, *packages: str) -> None:
    """Run apt-get, and retry while another program holds one of apt's locks.

    DPkg::Lock::Timeout is not used: it covers only one of the three locks.

    Raises Unusable if apt-get fails, or if the lock is still held after BUSY_DEADLINE_S.
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
            raise Unusable(f"`{words}` failed ({reason}): run it manually, and then run this again.")
        who = f"{busy['name']} (process {busy['pid']})" if busy["pid"] else "another program"
        if time.monotonic() > end_s:
            raise Unusable(
                f"`{words}` cannot run: {who} has held {busy['path']} for {BUSY_DEADLINE_S:.0f} s. Run this again "
                "when that program has ended."
            )
        if who != said:
            print(f"Waiting up to {BUSY_DEADLINE_S:.0f} s for {who}, which holds apt's lock.", flush=True)
            said = who
        time.sleep(BUSY_POLL_S)


def _apt_once(apt_get: str, verb: str, packages: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [apt_get, verb, "--yes", "--quiet=2"]
    if packages:
        command += ["--no-install-recommends", *packages]
    # LC_ALL: BUSY matches the English message
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
    """Prevent Debian's packages from starting their server on the default port: policy-rc.d answers 101."""
    # a run that was killed leaves a file with our text behind
    ours = not POLICY.exists() or POLICY.read_text() == POLICY_TEXT
    if ours:
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _disable_services(packages: Sequence[str]) -> None:
    """Disable the services of new packages: systemd would start them at the next boot."""
    units = " ".join(SERVICES.get(package, "") for package in packages).split()
    if units and Path("/run/systemd/system").exists():
        _output("systemctl", "disable", "--now", *units)
