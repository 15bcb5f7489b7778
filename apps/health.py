"""The health files of a worker or a recorder, which the pod's probes check."""

from contextlib import suppress
from pathlib import Path

# A liveness file of this age means that the process hangs, or has not attempted to connect for this time.
OLD_S = 60


class HealthFiles:
    """A liveness file, which is touched regularly, and a readiness file, which exists while messages are consumed.

    While the process is connected, its event loop touches the liveness file; otherwise each attempt to connect does. A
    file that cannot be written makes the probe fail, but raises no error: that would count as a lost broker.
    """

    def __init__(self, liveness_file: str | None, readiness_file: str | None) -> None:
        self._liveness = Path(liveness_file) if liveness_file else None
        self._readiness = Path(readiness_file) if readiness_file else None
        self.has_been_ready = False

    def alive(self) -> None:
        """Touch the liveness file."""
        _touch(self._liveness)

    def ready(self) -> None:
        """Create the readiness file."""
        self.has_been_ready = True
        _touch(self._readiness)

    def unready(self) -> None:
        """Remove the readiness file."""
        if self._readiness:
            self._readiness.unlink(missing_ok=True)


def _touch(path: Path | None) -> None:
    if path:
        with suppress(OSError):
            path.touch()
