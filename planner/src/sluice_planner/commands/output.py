"""Writes the files that commands make."""

from pathlib import Path

from sluice_planner.fields import Wrong


def write(path: Path, text: str) -> None:
    """Write a text file. Raises Wrong if it cannot be written."""
    try:
        path.write_text(text)
    except OSError as exc:
        raise Wrong(f"{path}: cannot be written ({exc.strerror})") from None
