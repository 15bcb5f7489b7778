"""A Python client that handles each answer as docs/api.md specifies: `Client` and `AsyncClient`."""

from apps.client.client import AsyncClient, Client
from apps.client.rules import Outcome, OutcomeUnknown, Problem, QuotaExceeded, Task, TimedOut

__all__ = ["AsyncClient", "Client", "Outcome", "OutcomeUnknown", "Problem", "QuotaExceeded", "Task", "TimedOut"]
