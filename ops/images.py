"""Builds both images with docker, podman or buildah: `python -m ops.images`.

The images get the names that the overlays deploy. The environment variable BASE replaces the Dockerfiles' base image.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import yaml

from ops.command import ROOT, Unusable, answers, command_line, show

IMAGES = {"sluice-api": "apps/api/Dockerfile", "sluice-worker": "apps/worker/Dockerfile"}
API_DOCKERFILE, WORKER_DOCKERFILE = IMAGES.values()
# The first program that works is used. `docker info` fails if there is a client without an engine.
ENGINES = {"docker": ("info",), "podman": ("info",), "buildah": ("version",)}
# docker and podman cache unchanged layers by default
KEEP_LAYERS = {"buildah": ("--layers",)}
BUILD_TIMEOUT_S = 1800
PUSH_TIMEOUT_S = 900
OVERLAYS = "kustomize/overlays/*/kustomization.yaml"
# Clusters resolve a name without a registry to this one; podman and buildah resolve it to localhost/.... So image names
# always include the registry.
DEFAULT_REGISTRY = "docker.io/library"


def dockerfile_command(root: Path, dockerfile: str) -> list[str]:
    """The words of the Dockerfile's CMD in exec form; empty if it has none."""
    match = re.search(r"^CMD (\[.*?\])$", (root / dockerfile).read_text(), re.MULTILINE | re.DOTALL)
    return cast("list[str]", json.loads(match[1].replace("\\\n", ""))) if match else []


def uvicorn_options(root: Path = ROOT) -> list[str]:
    """Uvicorn's options in the API's image, without app and address: every API process of the project runs with them.

    Read from the Dockerfile of `root`, as another commit may need other options.
    """
    command = dockerfile_command(root, API_DOCKERFILE)
    return command[command.index("--port") + 2 :]


def engine() -> str:
    """The program that builds images. Raises Unusable if there is none."""
    for name, check in ENGINES.items():
        if answers(name, *check):
            return name
    raise Unusable("Images need docker (with its engine running), podman or buildah: install one of them.")


def build(names: dict[str, str], base: str | None = None) -> None:
    """Build both images. `names` is image -> full name; `base` replaces the Dockerfiles' base image.

    Raises Unusable if no engine is available or a build fails.
    """
    program = engine()
    base = base or os.environ.get("BASE")
    arguments = ("--build-arg", f"BASE={base}") if base else ()
    for image, dockerfile in IMAGES.items():
        options = (*KEEP_LAYERS.get(program, ()), *arguments, "--file", dockerfile, "--tag", names[image])
        show(program, "build", *options, ".", timeout_s=BUILD_TIMEOUT_S)


def push(names: Iterable[str]) -> None:
    """Push images to their registry. Raises Unusable if a push fails."""
    program = engine()
    for name in names:
        show(program, "push", name, timeout_s=PUSH_TIMEOUT_S)


def full_names(version: str, registry: str | None) -> dict[str, str]:
    """Image -> its full name with registry and tag."""
    return {image: f"{(registry or DEFAULT_REGISTRY).rstrip('/')}/{image}:{version}" for image in IMAGES}


def deployed(root: Path = ROOT) -> dict[str, str]:
    """Image -> the full name that the overlays deploy. Raises Unusable if the overlays deploy different names."""
    names: dict[str, set[str]] = {image: set() for image in IMAGES}
    for path in root.glob(OVERLAYS):
        for entry in yaml.safe_load(path.read_text()).get("images") or []:
            name = entry.get("newName") or f"{DEFAULT_REGISTRY}/{entry['name']}"
            names.setdefault(entry["name"], set()).add(f"{name}:{entry['newTag']}")
    for image in IMAGES:
        if len(names[image]) != 1:
            there = ", ".join(sorted(names[image])) or "none"
            raise Unusable(
                f"The overlays do not all deploy the same {image} ({there}): run `make release VERSION=...`."
            )
    return {image: names[image].pop() for image in IMAGES}


def into_cluster(program: str, names: Iterable[str]) -> list[str]:
    """Instructions for loading images into a cluster on this machine: a line per kind of cluster, with its command."""
    words = " ".join(names)
    if program == "docker":
        return [
            "docker-desktop  nothing to do",
            f"kind            kind load docker-image {words}",
            f"k3d             k3d image import {words}",
        ]
    archive = {
        "podman": f"podman save --multi-image-archive --output sluice.tar {words}",
        "buildah": " && ".join(f"buildah push {name} docker-archive:{_archive(name)}:{name}" for name in words.split()),
    }[program]
    files = ["sluice.tar"] if program == "podman" else [_archive(name) for name in words.split()]
    return [
        f"first           {archive}",
        f"docker-desktop  {' && '.join(f'docker load --input {file}' for file in files)}",
        f"kind            {' && '.join(f'kind load image-archive {file}' for file in files)}",
        f"k3d             k3d image import {' '.join(files)}",
    ]


def _archive(name: str) -> str:
    return f"{name.rpartition('/')[2].partition(':')[0]}.tar"


def main() -> None:
    """Build the images that the overlays deploy, and print how to load them into a local cluster."""
    names = deployed()
    build(names)
    program = engine()
    print(f"Built {' and '.join(names.values())} with {program}. Load them into a cluster on this machine with")
    print("\n".join(f"  {line}" for line in into_cluster(program, names.values())))


if __name__ == "__main__":
    command_line(main)
