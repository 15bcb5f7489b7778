"""What a burst came to, as a file: another process waits for it."""

import json

from deploy.run import ROOT
from local.child import until

FOLDER = ROOT / "build" / "e2e"
# a cluster's start, what comes before the burst, and the burst, on a busy machine
TIMEOUT_S = 900

# what two bursts are compared by
Figures = dict[str, float]


class Told:
    """The figures of the burst under an overlay: there as soon as it is drained, or as it has failed."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.path = FOLDER / f"burst-{overlay}.json"

    def forget(self) -> None:
        """Take away what an earlier run has told."""
        self.path.unlink(missing_ok=True)

    def tell(self, figures: Figures | None) -> None:
        """Its figures, or that there will be none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(figures) + "\n")
        unfinished.replace(self.path)

    def over(self) -> None:
        """Wait until the burst is drained, or has failed."""
        until(self.path.exists, TIMEOUT_S, f"the end of the burst under the overlay {self.overlay}")

    def figures(self) -> Figures:
        """Waited for."""
        self.over()
        figures: Figures | None = json.loads(self.path.read_text())
        assert figures, f"the burst under the overlay {self.overlay} has failed: see its own test"
        return figures
