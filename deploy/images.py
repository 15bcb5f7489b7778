"""Builds both images with docker, podman or buildah: `python -m deploy.images`.

The tag is the one that the overlays deploy. BASE in the environment takes the place of the Dockerfiles' base image.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from deploy.run import ROOT, Unusable, answers, command_line, show

IMAGES = {"sluice-api": "apps/api/Dockerfile", "sluice-worker": "apps/worker/Dockerfile"}
# the first that works; `docker info` fails where there is a client but no engine
ENGINES = {"docker": ("info",), "podman": ("info",), "buildah": ("version",)}
BUILD_TIMEOUT_S = 1800
PUSH_TIMEOUT_S = 900
OVERLAYS = "kustomize/overlays/*/kustomization.yaml"


def engine() -> str:
    """The program that builds. Unusable if there is none."""
    for name, check in ENGINES.items():
        if answers(name, *check):
            return name
    raise Unusable("Images need docker (with its engine running), podman or buildah: install one of them.")


def build(version: str, registry: str | None = None) -> list[str]:
    """Build both images; their names with tag."""
    program = engine()
    base = os.environ.get("BASE")
    arguments = ("--build-arg", f"BASE={base}") if base else ()
    for image, dockerfile in IMAGES.items():
        name = reference(image, version, registry)
        show(program, "build", *arguments, "--file", dockerfile, "--tag", name, ".", timeout_s=BUILD_TIMEOUT_S)
    return [reference(image, version, registry) for image in IMAGES]


def push(names: Iterable[str]) -> None:
    """Push images to their registry."""
    program = engine()
    for name in names:
        show(program, "push", name, timeout_s=PUSH_TIMEOUT_S)


def reference(image: str, version: str, registry: str | None) -> str:
    """An image's full name."""
    return f"{registry.rstrip('/')}/{image}:{version}" if registry else f"{image}:{version}"


def deployed_version(root: Path = ROOT) -> str:
    """The tag in the overlays. Unusable if they do not agree."""
    tags = {tag for path in root.glob(OVERLAYS) for tag in re.findall(r"newTag: (\S+)", path.read_text())}
    if len(tags) != 1:
        raise Unusable(
            f"The overlays deploy several versions ({', '.join(sorted(tags))}): run `make release VERSION=...`."
        )
    return str(tags.pop())


def main() -> None:
    """Build what the overlays deploy."""
    names = build(deployed_version(), os.environ.get("REGISTRY"))
    print(f"Built {' and '.join(names)} with {engine()}.")
    print(f"docker-desktop has them; for others: kind load docker-image {' '.join(names)}")
    print(f"                                     k3d image import {' '.join(names)}")


if __name__ == "__main__":
    command_line(main)
