"""How Locust is told of the users over time; `sluice simulate --arrivals shape:loadtest/stages.py,...` reads it too."""

import os

from locust import LoadTestShape

from loadtest import shapes

# All that are missing, at once: between two looks at the clock, a second apart, that is as even as it needs to be.
RATE_PER_S = 1000.0


class Stages(LoadTestShape):  # type: ignore[misc]  # Locust is not among the development tools: it has no types there
    """The stages of the shape that the environment names."""

    def __init__(self) -> None:
        super().__init__()
        self._shape = shapes.load(os.environ.get(shapes.SHAPE, "smoke"))

    def tick(self) -> tuple[int, float] | None:
        """Users now, and how fast to get there."""
        users = self._shape.users_at(self.get_run_time())
        return None if users is None else (users, RATE_PER_S)
