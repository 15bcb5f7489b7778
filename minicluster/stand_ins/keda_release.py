"""KEDA from its own module: the manifests, and an image of its three programs."""

from pathlib import Path

from deploy.run import output
from deploy.tools import cache, kubectl, locked, module_folders
from tests.e2e.cluster import binaries
from tests.e2e.platform import images

# place in the image -> name of the program as Go builds it
PROGRAMS = {"/keda": "operator", "/keda-adapter": "adapter", "/keda-admission-webhooks": "webhooks"}
TIMEOUT_S = 60


def manifests() -> str:
    """What KEDA's config/default renders to."""
    return output(kubectl(), "kustomize", module_folders()[0] / "config" / "default", timeout_s=TIMEOUT_S)


def tag() -> str:
    """Of the image: changes with the programs."""
    return binaries.folder_of(binaries.KEDA).name


def name() -> str:
    """The image's."""
    return f"{images.REPOSITORY}/keda:{tag()}"


def image() -> Path:
    """The image's archive."""
    programs = {place: binaries.folder_of(binaries.KEDA) / name for place, name in PROGRAMS.items()}
    path = cache() / f"image-{tag()}.tar"
    with locked(path):
        if not path.exists():
            images.of_programs(programs, [name()], path)
    return path
