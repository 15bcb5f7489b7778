"""The project's images are built once for each base image, and cached."""

import os
from pathlib import Path

import pytest

from minicluster import app_images

RECORDING = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/arguments"
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `docker` first on the PATH that only records its arguments, and return the file of the arguments."""
    (tmp_path / "docker").write_text(RECORDING)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "arguments"


def test_images_are_cached_for_each_base_image(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(docker.parent / "cache"))
    for base in ("one", "two", "one"):
        monkeypatch.setenv("BASE", base)
        app_images.built("1", local_base=False)
    bases = [word for word in docker.read_text().split() if word.startswith("BASE=")]
    assert bases == ["BASE=one", "BASE=one", "BASE=two", "BASE=two"]
