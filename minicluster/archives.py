"""Images without a registry: a root file system as an archive that containerd, docker and podman load."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.tools import cache, locked
from local import debian, newer

TIMEOUT_S = 300
# nobody reads these in a container
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache")
# Debian lets only its own user into it; in the real image it is not there, and the chart mounts a file into it.
ABSENT = ("etc/redis",)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REPOSITORY = "localhost/sluice-platform"
NOBODY = "65532:65532"  # numbers, so that Kubernetes can see that it is not root
SERVERS = ("rabbitmq", "redis", "nginx")


def servers() -> Path:
    """The archive of RabbitMQ, Redis and nginx: three names of one root file system, which is loaded once."""
    root = newer.ensure()
    path = cache() / f"servers-2-{root.name}.tar"  # 2: without ABSENT
    with locked(path):
        if not path.exists():
            write(path, root, names())
    return path


def names() -> list[str]:
    """Of the three."""
    return [f"{REPOSITORY}/{server}:{tag()}" for server in SERVERS]


def tag() -> str:
    """Of those images: the name of their root file system."""
    return debian.name(newer.SUITE, newer.PACKAGES)


def of_programs(programs: dict[str, Path], names: Sequence[str], path: Path) -> Path:
    """Write the archive of an image with nothing but static programs (place in the image -> file) and /tmp."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        for place, program in programs.items():
            target = root / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program, target)
        root.chmod(0o755)
        # one program is what a container of the image starts; the runtime asks for that of the pause image
        write(path, root, names, Entrypoint=list(programs) if len(programs) == 1 else [])
    return path


def write(path: Path, root: Path, names: Sequence[str], **config: object) -> None:
    """Write a docker-archive of one image by several names; complete or absent. `config` is as OCI spells it."""
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
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {
        "architecture": _architecture(),
        "os": "linux",
        "config": config,
        # buildah builds on an image only if its history names each layer
        "history": [{"created_by": "a root file system"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }


def _architecture() -> str:
    """As images name it."""
    return subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout.strip()
