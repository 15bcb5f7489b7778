"""Builds the project's images from its Dockerfiles as docker-archives, cached by a digest of their sources."""

import hashlib
import os
import shutil
from pathlib import Path

from minicluster import archives
from ops import images
from ops.apt import apt_install
from ops.command import ROOT, output
from ops.servers import debian
from ops.servers.programs import find
from ops.tools import cache, locked

BASE_SUITE = "trixie"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
TRUST = Path("etc/ssl/certs/ca-certificates.crt")
TIMEOUT_S = 300


def built(version: str, *, local_base: bool) -> list[Path]:
    """Build both images with the tag `version`, and return the paths of their archives.

    The base image is built from Debian packages if `local_base`, otherwise it is BASE or that of the Dockerfiles.
    """
    names = images.full_names(version, None)
    base = base_name() if local_base else os.environ.get("BASE", "")
    kept = cache() / "apps" / f"{_digest(base)}-{version}"
    paths = [kept / f"{image}.tar" for image in names]
    with locked(kept):
        if not kept.exists():
            unfinished = kept.with_name(f"{kept.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            images.build(names, settings(local_base=local_base).get("BASE"))
            for image, name in names.items():
                save(name, unfinished / f"{image}.tar")
            unfinished.rename(kept)
    return paths


def settings(*, local_base: bool) -> dict[str, str]:
    """The environment variables for `make images` and `make release`."""
    return {"BASE": _base()} if local_base else {}


def save(name: str, archive: Path) -> None:
    """Save an image of the container engine as a docker-archive."""
    engine = images.engine()
    pushed = ("push", name, f"docker-archive:{archive}:{name}")
    output(engine, *(pushed if engine == "buildah" else ("save", "--output", archive, name)), timeout_s=TIMEOUT_S)


def base_name() -> str:
    """The name of the local base image. Its tag changes with the packages and the trusted certificates."""
    trust = hashlib.sha256((Path("/") / TRUST).read_bytes()).hexdigest()[:8]
    return f"localhost/sluice-python:{debian.name(BASE_SUITE, BASE_PACKAGES)}-{trust}"


def _base() -> str:
    """Load the local base image into the container engine, and return its name.

    The image is Debian with the same Python version as the official image.
    """
    if find("buildah") is None:
        apt_install(["buildah"])
    engine = images.engine()
    name = base_name()
    archive = cache() / f"{name.rpartition(':')[2]}.tar"
    with locked(archive):
        if not archive.exists():
            root = debian.root(BASE_SUITE, BASE_PACKAGES)
            # the build may reach the package index only through a proxy whose CA this machine trusts
            shutil.copy(Path("/") / TRUST, root / TRUST)
            settings = [f"PATH={archives.PATH}", f"SSL_CERT_FILE=/{TRUST}"]
            # root, as in the official image, because the Dockerfiles install packages
            archives.write(archive, root, [name], User="0:0", Env=settings)
    load = ("pull", f"docker-archive:{archive}") if engine == "buildah" else ("load", "--input", archive)
    output(engine, *load, timeout_s=TIMEOUT_S)
    return name


def _digest(base: str) -> str:
    """A digest of the base's name and of every file that the Dockerfiles copy."""
    options = ("--cached", "--others", "--exclude-standard")
    listed = output("git", "ls-files", *options, "apps", "requirements", ".dockerignore", timeout_s=TIMEOUT_S)
    summed = hashlib.sha256(base.encode())
    for name in sorted(listed.split()):
        summed.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return summed.hexdigest()[:12]
