"""Files that commands write."""

from pathlib import Path

from sluice_planner.fields import Wrong


def write(path: Path, text: str) -> None:
    """Wrong where it cannot be."""
    try:
        path.write_text(text)
    except OSError as exc:
        raise Wrong(f"{path}: cannot be written ({exc.strerror})") from None
