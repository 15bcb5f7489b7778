"""Reads YAML by libyaml: ten times as fast as yaml.safe_load, and as safe."""

from pathlib import Path
from typing import Any

import yaml


def documents(text: str) -> list[Any]:
    """Those that are not empty."""
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each is not None]


def document(text: str) -> Any:
    """The one that there is; None if it is empty."""
    return yaml.load(text, yaml.CSafeLoader)


def document_of(path: Path) -> Any:
    """The one in a file."""
    return document(path.read_text())
