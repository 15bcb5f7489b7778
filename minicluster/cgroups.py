"""The control group of a cluster. The kubelet creates the control groups of pods below it."""

import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
TIMEOUT_S = 20
POLL_S = 0.1


def make(name: str) -> None:
    """Create the control group in the hierarchy of cgroup v2, or in each hierarchy of v1."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
    if _unified():
        controllers = " ".join(f"+{each}" for each in (ROOT / "cgroup.controllers").read_text().split())
        for folder in (ROOT, ROOT / name):
            (folder / "cgroup.subtree_control").write_text(controllers)
    else:
        # in cgroup v1, a group without CPUs and memory nodes accepts no processes
        for each in ("cpuset.cpus", "cpuset.mems"):
            (ROOT / "cpuset" / name / each).write_text((ROOT / "cpuset" / each).read_text())


def remove(name: str) -> None:
    """Remove the control group and its children.

    Retries for TIMEOUT_S, because the kernel frees a group some time after its last process has ended; then raises
    OSError.
    """
    deadline = time.monotonic() + TIMEOUT_S
    for hierarchy in _hierarchies():
        folders = sorted((hierarchy / name).rglob("*/"), reverse=True) if (hierarchy / name).exists() else []
        for folder in [*(each for each in folders if each.is_dir()), hierarchy / name]:
            _remove(folder, deadline)


def _remove(folder: Path, deadline: float) -> None:
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    return [ROOT] if _unified() else [each for each in ROOT.iterdir() if each.is_dir() and not each.is_symlink()]
