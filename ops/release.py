"""Releases a version: `python -m ops.release VERSION`. Builds images, pushes if REGISTRY is set, commits the tag."""

import os
import re
import sys
from pathlib import Path

from ops import images
from ops.command import ROOT, Unusable, command_line, output

# a semantic version that is also a valid image tag
VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
GIT_TIMEOUT_S = 60


def main() -> None:
    """Build and push the images, set the tag in the overlays, and commit.

    Raises Unusable if the version is invalid, there are uncommitted changes, or the overlays already have this version.
    """
    version = sys.argv[1] if sys.argv[1:] else ""
    if not VERSION.fullmatch(version):
        raise Unusable(f"{version!r} is not a version: run `make release VERSION=1.2.3`.")
    if output("git", "status", "--porcelain", timeout_s=GIT_TIMEOUT_S):
        raise Unusable("There are uncommitted changes: commit or stash them, as a release is built from a commit.")
    registry = os.environ.get("REGISTRY") or None
    names = images.full_names(version, registry)
    images.build(names)
    if registry:
        images.push(names.values())
    files = set_version(version, registry)
    if not output("git", "status", "--porcelain", timeout_s=GIT_TIMEOUT_S):
        raise Unusable(f"The overlays already deploy {version}: there is nothing to commit.")
    output("git", "commit", "--quiet", f"--message=Release {version}", "--", *files, timeout_s=GIT_TIMEOUT_S)
    print(f"Committed release {version}: push it, and let Flux or `make deploy` deploy it.")


def set_version(version: str, registry: str | None, root: Path = ROOT) -> list[Path]:
    """Write the tag, and the registry if there is one, into every overlay. Returns the files.

    Raises Unusable if an overlay does not set an image by name and newTag.
    """
    files = sorted(root.glob(images.OVERLAYS))
    for path in files:
        text = path.read_text()
        for image in images.IMAGES:
            text = _set_image(text, image, version, registry, path)
        path.write_text(text)
    return files


def _set_image(text: str, image: str, version: str, registry: str | None, path: Path) -> str:
    new = f"  - name: {image}\n"
    if registry:
        new += f"    newName: {registry.rstrip('/')}/{image}\n"
    new += f"    newTag: {version}\n"
    entry = re.compile(rf"  - name: {image}\n(    newName: \S+\n)?    newTag: \S+\n")
    text, count = entry.subn(new, text)
    if count != 1:
        raise Unusable(f"{path} does not set {image} under `images:` by name and newTag.")
    return text


if __name__ == "__main__":
    command_line(main)
