"""A control group of the cluster's own, below which its kubelet keeps those of pods."""

import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
TIMEOUT_S = 20
POLL_S = 0.1


def make(name: str) -> None:
    """In the one hierarchy of cgroup v2, or in each of v1."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
    if _unified():
        controllers = " ".join(f"+{each}" for each in (ROOT / "cgroup.controllers").read_text().split())
        for folder in (ROOT, ROOT / name):
            (folder / "cgroup.subtree_control").write_text(controllers)
    else:
        # an empty set of processors or memory takes no process
        for each in ("cpuset.cpus", "cpuset.mems"):
            (ROOT / "cpuset" / name / each).write_text((ROOT / "cpuset" / each).read_text())


def remove(name: str) -> None:
    """Those of the pods too. All processes in them have ended, but the kernel takes a moment to notice."""
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
