"""The project's own images, built from its Dockerfiles, as archives that a cluster loads; kept by what is in them."""

import hashlib
import os
import shutil
from pathlib import Path

from deploy import images
from deploy.run import ROOT, output
from deploy.tools import cache, locked
from local import debian
from local.programs import apt_install, find
from tests.e2e.platform import images as archives

BASE_SUITE = "trixie"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
TRUST = Path("etc/ssl/certs/ca-certificates.crt")
TIMEOUT_S = 300


def built(version: str, *, local_base: bool) -> list[Path]:
    """Both images at a version, one archive each. On a local base, a Debian made here, no image registry is needed."""
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
    """The environment that `make images` and `make release` build in."""
    return {"BASE": _base()} if local_base else {}


def save(name: str, archive: Path) -> None:
    """Write an image of the engine's store into an archive."""
    engine = images.engine()
    pushed = ("push", name, f"docker-archive:{archive}:{name}")
    output(engine, *(pushed if engine == "buildah" else ("save", "--output", archive, name)), timeout_s=TIMEOUT_S)


def base_name() -> str:
    """The local base's: changes with what is in it."""
    trust = hashlib.sha256((Path("/") / TRUST).read_bytes()).hexdigest()[:8]
    return f"localhost/sluice-python:{debian.name(BASE_SUITE, BASE_PACKAGES)}-{trust}"


def _base() -> str:
    """Debian with the Python that the official image has, in the store of the engine."""
    if find("buildah") is None:
        apt_install(["buildah"])
    engine = images.engine()
    name = base_name()
    archive = cache() / f"{name.rpartition(':')[2]}.tar"
    with locked(archive):
        if not archive.exists():
            root = debian.root(BASE_SUITE, BASE_PACKAGES)
            # this machine may reach the package index only through a proxy whose authority it trusts
            shutil.copy(Path("/") / TRUST, root / TRUST)
            settings = [f"PATH={archives.PATH}", f"SSL_CERT_FILE=/{TRUST}"]
            # the Dockerfiles write into it
            archives.write(archive, root, [name], User="0:0", Env=settings)
    load = ("pull", f"docker-archive:{archive}") if engine == "buildah" else ("load", "--input", archive)
    output(engine, *load, timeout_s=TIMEOUT_S)
    return name


def _digest(base: str) -> str:
    """Of everything that the Dockerfiles take in, on a base."""
    listed = output(
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "apps",
        "requirements",
        ".dockerignore",
        timeout_s=TIMEOUT_S,
    )
    summed = hashlib.sha256(base.encode())
    for name in sorted(listed.split()):
        summed.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return summed.hexdigest()[:12]
