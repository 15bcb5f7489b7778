"""Writes images as docker-archives of a root file system, for containerd, docker and podman, without a registry."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 300
# documentation and caches are left out
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache")
# Only Debian's redis user may enter this folder. The official image of Redis does not have it: the chart mounts it.
ABSENT = ("etc/redis",)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "65532:65532"  # numeric, because runAsNonRoot cannot verify user names


def of_programs(programs: dict[str, Path], names: Sequence[str], path: Path) -> Path:
    """Write the archive of an image with static programs (path in the image -> file) and /tmp. Returns `path`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        for place, program in programs.items():
            target = root / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program, target)
        root.chmod(0o755)
        # the pause image needs an entrypoint; for images with several programs the manifest has the command
        write(path, root, names, Entrypoint=list(programs) if len(programs) == 1 else [])
    return path


def write(path: Path, root: Path, names: Sequence[str], **config: object) -> None:
    """Write the docker-archive of one image with several names atomically. `config`: keys of the OCI image config."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        layer, description, manifest, archive = (
            Path(folder) / name for name in ("layer.tar", "config.json", "manifest.json", "archive.tar")
        )
        excluded = [*(f"--exclude=./{each}/*" for each in LEFT_OUT), *(f"--exclude=./{each}" for each in ABSENT)]
        tar = ("tar", "--create", "--file", layer, "--numeric-owner", "--directory", root)
        subprocess.run([*tar, *excluded, "."], check=True, timeout=TIMEOUT_S)
        description.write_text(json.dumps(_described(layer, {"User": NOBODY, "Env": [f"PATH={PATH}"]} | config)))
        manifest.write_text(json.dumps([{"Config": description.name, "RepoTags": list(names), "Layers": [layer.name]}]))
        with tarfile.open(archive, "w") as content:
            for each in (manifest, description, layer):
                content.add(each, each.name)
        archive.replace(path)


def _described(layer: Path, config: dict[str, object]) -> dict[str, object]:
    """The OCI image configuration of an image with one layer."""
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {
        "architecture": _architecture(),
        "os": "linux",
        "config": config,
        # buildah accepts a base image only if its history has an entry for each layer
        "history": [{"created_by": "a root file system"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }


def _architecture() -> str:
    """The architecture of this machine. Debian and OCI use the same names."""
    return subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout.strip()
