"""Every command that cannot start ends with one sentence that names the cause."""

import errno
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ops.command import REFUSALS, Unusable, command_line, sentence
from tests.harness.system import ROOT
from tests.harness.thorough import thorough

TARGETS = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
# These have several exit statuses, or do not belong to operators, and handle errors by themselves.
OTHERWISE = {"ops.up", "loadtest", "tests.chaos", "pytest", "pip", "apps.client", "apps.worker.dead_letters"}


def modules() -> set[str]:
    """Return the modules that make targets run, with both alternatives of each `$(if ...)`."""
    text = re.sub(r"-m \$\(if \$\(\w+\),([\w.]+),([\w.]+)\)", r"python -m \1 python -m \2", TARGETS)
    return set(re.findall(r"python -m ([\w.]+)", text)) - OTHERWISE


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_command_reports_errors_in_a_sentence(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    path = path.with_name("__main__.py") if path.name == "__init__.py" else path
    assert "command_line(main)" in path.read_text()


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_refusal_of_the_operating_system_is_one_sentence_with_the_path(number: int) -> None:
    said = sentence(OSError(number, os.strerror(number), "/a/place"))
    assert said.endswith(".")
    assert len(said.splitlines()) == 1
    assert "/a/place" in said or "Too many" in said


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "on the disk of a file"),
        (TimeoutError("the start of the node took more than 120 s"), "the start of the node took more than 120 s."),
        (FileNotFoundError(errno.ENOENT, "No such file", "iptables"), "iptables is not installed, or not on the PATH."),
        (subprocess.CalledProcessError(2, ["/sbin/ip", "link"], stderr=b"a\nno rights\n"), "`ip link` failed with"),
        (subprocess.TimeoutExpired(["openssl", "req"], 5), "`openssl req` took longer than 5 s"),
        (Unusable("It is so."), "It is so."),
    ],
)
def test_missing_or_failing_program_is_one_sentence(exc: OSError | Unusable, said: str) -> None:
    assert said in sentence(exc)


@pytest.mark.parametrize(
    "exc", [FileNotFoundError(errno.ENOENT, "No such file", "/a/file"), ConnectionResetError(errno.ECONNRESET, "reset")]
)
def test_unexpected_error_keeps_its_traceback(exc: OSError) -> None:
    with pytest.raises(type(exc)):
        sentence(exc)


def test_interrupted_command_exits_with_130() -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command_line(main)
    assert ended.value.code == 130


# Mounted over the command's folder in a mount namespace of its own, so that the machine's disks stay unchanged.
DISKS = {
    "read-only": ("ro", "cannot be written (Read-only file system): run this on a writable file system."),
    "full": ("size=4k,nr_inodes=2", "No space is left on the disk of "),
}
STARTS = {
    "make up": ("ops.up",),
    "make chaos-quick": ("tests.chaos", "quick", "--folder", "{folder}/run"),
    "make load": ("loadtest", "smoke", "--folder", "{folder}/run"),
    "make tools": ("ops.validate.schemas",),
    "make e2e": ("minicluster", "build"),
}
# the file uses the last inode
MOUNT = 'mount -t tmpfs -o "$0" tmpfs "$1"; true 2>/dev/null >"$1/file"; shift; exec "$@"'


@pytest.mark.parametrize("disk", ["read-only", *thorough("full")])
@pytest.mark.parametrize("start", ["make up", *thorough(*list(STARTS)[1:])])
def test_read_only_or_full_disk_is_one_sentence(start: str, disk: str, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root to mount")
    folder = tmp_path / ".local"
    folder.mkdir()
    for package in ("apps", "ops"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    options, said = DISKS[disk]
    command = [sys.executable, "-m", *(part.format(folder=folder) for part in STARTS[start])]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNT, options, folder, *command],
        cwd=tmp_path if start == "make up" else ROOT, env=os.environ | {"SLUICE_CACHE": str(folder / "cache")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]
