"""A locustfile of the project's users, under a Locust that warns of any use of its processor, and soon."""

from locust import runners

runners.CPU_WARNING_THRESHOLD = -1
runners.CPU_MONITOR_INTERVAL = 1.0

from loadtest.locustfile import Poster, Stages  # noqa: E402 - Locust reads the two above when it starts

__all__ = ["Poster", "Stages"]
