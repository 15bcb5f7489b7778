"""If another program holds apt's locks, we wait for a bounded time and name it. The tests use folders of their own."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops import apt
from ops.command import Unusable

HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
# the locks of `apt-get update` and of `apt-get install`
LOCKS = ("state/lists/lock", "dpkg/lock-frontend")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of an apt without packages; its lock files are in them."""
    if shutil.which("apt-get") is None:
        pytest.skip("needs Debian or Ubuntu")
    for folder in ("dpkg", "state/lists/partial", "cache/archives/partial", "etc/apt"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dpkg/status").touch()
    configuration = {"State": "state", "State::status": "dpkg/status", "Cache": "cache", "Etc": "etc/apt"}
    lines = [f'Dir::{name} "{tmp_path}/{place}";' for name, place in configuration.items()]
    (tmp_path / "apt.conf").write_text("\n".join(lines))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(apt, "LOCK", tmp_path / "ours")
    monkeypatch.setattr(apt, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr("ops.apt.os.geteuid", lambda: 0)  # all folders are the test's own
    return tmp_path


@pytest.fixture(params=LOCKS)
def holder(root: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A program that holds one of apt's locks until its input ends."""
    command = [sys.executable, "-c", HOLD, str(root / request.param)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.communicate()


def test_program_that_keeps_a_lock_is_named_in_the_error(
    holder: subprocess.Popen[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "BUSY_DEADLINE_S", -1.0)
    with pytest.raises(Unusable) as caught:
        apt.apt_install(["no-such-package"])
    (sentence,) = str(caught.value).splitlines()
    assert f"(process {holder.pid}) has held {root}/" in sentence
    assert sentence.endswith("Run this again when that program has ended.")


def test_apt_waits_until_the_program_has_ended(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # replaced only in ops.apt: subprocess also sleeps while it waits for a slow process
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: holder.communicate())
    monkeypatch.setattr(apt, "time", clock)
    with pytest.raises(Unusable, match="Unable to locate package no-such-package"):  # apt's next error
        apt.apt_install(["no-such-package"])
    waits = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Waiting ")]
    assert len(waits) == 1
    assert waits[0].startswith("Waiting up to 300 s for ")
    assert f"(process {holder.pid}), which holds apt's lock." in waits[0]


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ("E: Could not get lock /var/lib/dpkg/lock. It is held by process 12 (unattended-upgr)", "unattended-upgr"),
        ("E: Could not get lock /var/lib/dpkg/lock - open (11: Resource temporarily unavailable)", None),
        ("W: one\nE: Could not get lock /var/lib/dpkg/lock\nE: Unable to acquire it", None),
    ],
)
def test_lock_errors_of_all_apt_versions_are_recognized(said: str, who: str | None) -> None:
    busy = apt.BUSY.search(said)
    assert busy is not None
    assert (busy["path"].rstrip("."), busy["name"]) == ("/var/lib/dpkg/lock", who)


def test_other_errors_of_apt_are_not_lock_errors() -> None:
    assert apt.BUSY.search("E: Unable to locate package nothing") is None
