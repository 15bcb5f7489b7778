"""The number of users over time, for Locust and for `sluice simulate --arrivals shape:loadtest/stages.py,...`."""

import os

from locust import LoadTestShape

from loadtest import shapes

# Users to start per second: high enough to start all missing users at once. `tick` is called every second.
RATE_PER_S = 1000.0


class Stages(LoadTestShape):  # type: ignore[misc]  # Locust is not among the development tools: it has no types there
    """The stages of the shape in the environment variable LOAD_SHAPE."""

    def __init__(self) -> None:
        super().__init__()
        self._shape = shapes.load(os.environ.get(shapes.SHAPE, "smoke"))

    def tick(self) -> tuple[int, float] | None:
        """(number of users now, users to start per second), or None after the last stage."""
        users = self._shape.users_at(self.get_run_time())
        return None if users is None else (users, RATE_PER_S)
