"""Builds the image of the Job: `python -m loadtest.job.image`. The environment may have BASE, as for `make images`."""

import os
import shutil
import tempfile
from pathlib import Path

from ops import images
from ops.command import ROOT, command_line, show

NAME = f"{images.DEFAULT_REGISTRY}/sluice-load:0.1.0"
DOCKERFILE = "loadtest/job/Dockerfile"
# Folders of the build context. The project's own context excludes them by .dockerignore.
CONTENT = ("apps", "loadtest", "ops", "requirements")


def main() -> None:
    """Build the image, and print how to load it into a cluster on this machine."""
    program = images.engine()
    base = os.environ.get("BASE")
    arguments = ("--build-arg", f"BASE={base}") if base else ()
    with tempfile.TemporaryDirectory() as context:
        for name in CONTENT:
            shutil.copytree(ROOT / name, Path(context) / name, ignore=shutil.ignore_patterns("__pycache__"))
        options = (*images.KEEP_LAYERS.get(program, ()), *arguments, "--file", f"{context}/{DOCKERFILE}", "--tag", NAME)
        show(program, "build", *options, context, timeout_s=images.BUILD_TIMEOUT_S)
    print(f"Built {NAME} with {program}. Load it into a cluster on this machine with")
    print("\n".join(f"  {line}" for line in images.into_cluster(program, [NAME])))


if __name__ == "__main__":
    command_line(main)
