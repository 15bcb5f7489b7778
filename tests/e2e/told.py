"""How long a burst took, as a file: another process waits for it."""

import json

from ops.command import ROOT
from ops.servers.child import until

FOLDER = ROOT / "build" / "e2e"
# a cluster's start, what comes before the burst, and the burst, on a busy machine
TIMEOUT_S = 900


class Told:
    """The seconds that the burst under an overlay took to drain: there as soon as they are over, or it has failed."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.path = FOLDER / f"burst-{overlay}.json"

    def forget(self) -> None:
        """Take away what an earlier run has told."""
        self.path.unlink(missing_ok=True)

    @property
    def told(self) -> bool:
        """Whether there is anything."""
        return self.path.exists()

    def tell(self, drain_s: float | None) -> None:
        """So many, or that there will be none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(drain_s) + "\n")
        unfinished.replace(self.path)

    def over(self) -> None:
        """Wait until the burst is drained, or has failed."""
        until(lambda: self.told, TIMEOUT_S, f"the end of the burst under the overlay {self.overlay}")

    def drain_s(self) -> float:
        """Waited for."""
        self.over()
        drain_s: float | None = json.loads(self.path.read_text())
        assert drain_s, f"the burst under the overlay {self.overlay} has failed: see its own test"
        return drain_s
