"""A locustfile with the project's users, in which Locust warns about any CPU usage after one second."""

from locust import runners

runners.CPU_WARNING_THRESHOLD = -1
runners.CPU_MONITOR_INTERVAL = 1.0

from loadtest.locustfile import Poster, Stages  # noqa: E402 - Locust reads the two settings above when it starts

__all__ = ["Poster", "Stages"]
