"""The files that tell a probe how a worker or a recorder is."""

from contextlib import suppress
from pathlib import Path

# A liveness file of this age is one of a process that hangs, or that has not begun to connect for as long.
OLD_S = 60


class HealthFiles:
    """A liveness file, which must never be old, and a readiness file, which is there while messages are consumed.

    The first is touched by what must not stop: the event loop while it is connected, and the beginning of each attempt
    to connect while it is not. One that cannot be written is no lost broker: a probe will see it grow old, or miss it.
    """

    def __init__(self, liveness_file: str | None, readiness_file: str | None) -> None:
        self._liveness = Path(liveness_file) if liveness_file else None
        self._readiness = Path(readiness_file) if readiness_file else None
        self.has_been_ready = False

    def alive(self) -> None:
        """Touch the liveness file."""
        _touch(self._liveness)

    def ready(self) -> None:
        """Make the readiness file."""
        self.has_been_ready = True
        _touch(self._readiness)

    def unready(self) -> None:
        """Take the readiness file away."""
        if self._readiness:
            self._readiness.unlink(missing_ok=True)


def _touch(path: Path | None) -> None:
    if path:
        with suppress(OSError):
            path.touch()
