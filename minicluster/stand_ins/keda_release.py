"""KEDA from its Go module: the manifests in the module, and an image with its three programs."""

from pathlib import Path

from minicluster import archives, binaries
from minicluster.stand_ins.server_image import REPOSITORY
from ops.command import output
from ops.tools import cache, kubectl, locked, module_folders

# path in the image -> name of the program that Go builds
PROGRAMS = {"/keda": "operator", "/keda-adapter": "adapter", "/keda-admission-webhooks": "webhooks"}
TIMEOUT_S = 60


def manifests() -> str:
    """The rendered `config/default` of KEDA's module."""
    return output(kubectl(), "kustomize", module_folders()[0] / "config" / "default", timeout_s=TIMEOUT_S)


def tag() -> str:
    """The image's tag. It changes with the programs."""
    return binaries.folder_of(binaries.KEDA).name


def name() -> str:
    """The image's name with the tag."""
    return f"{REPOSITORY}/keda:{tag()}"


def archive() -> Path:
    """The path of the image's archive."""
    programs = {place: binaries.folder_of(binaries.KEDA) / name for place, name in PROGRAMS.items()}
    path = cache() / f"image-{tag()}.tar"
    with locked(path):
        if not path.exists():
            archives.of_programs(programs, [name()], path)
    return path
