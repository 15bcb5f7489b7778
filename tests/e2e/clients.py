"""Clients that keep posting tasks while a test changes the system."""

import itertools
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx

from apps.client import OutcomeUnknown, Problem
from tests.e2e.system import System

STOP_TIMEOUT_S = 180
REQUEST_TIMEOUT_S = 10
# short enough that a request fails if a pod is away
PERIOD_S = 0.2
PERSISTENCE_S = 120


class Posting:
    """Post tasks one after the other on a thread, inside a `with` block."""

    def __init__(self, system: System, prefix: str) -> None:
        self.system = system
        self.prefix = prefix
        self.accepted: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        for number in itertools.count():
            if self._over.wait(PERIOD_S):
                return
            self.post(f"{self.prefix}-{number}")

    def post(self, name: str) -> None:
        """Post one task; `accepted` gets its id and name."""
        raise NotImplementedError


class Patient(Posting):
    """Post with the project's client, which retries requests that are safe to retry."""

    def post(self, name: str) -> None:
        # without a 202 the client knows no accepted task, so the system has promised nothing
        with self.system.client() as client, suppress(Problem, OutcomeUnknown):
            self.accepted[client.submit({"task": "counted_short", "name": name}, deadline_s=PERSISTENCE_S)] = name


class Strict(Posting):
    """Send every request once and record each failure."""

    def __init__(self, system: System, prefix: str) -> None:
        super().__init__(system, prefix)
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self._http = httpx.Client(
            base_url=system.entrance,
            headers={"Authorization": f"Bearer {system.key}", "Host": system.host},
            timeout=REQUEST_TIMEOUT_S,
        )

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        super().__exit__(kind, value, traceback)
        self._http.close()

    def post(self, name: str) -> None:
        answer = self._sent("POST", "/tasks", {"task": "counted_short", "name": name})
        if answer:
            self.accepted[answer["task_id"]] = name
            self._sent("GET", f"/tasks/{answer['task_id']}")

    def _sent(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, str] | None:
        began = time.monotonic()
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as exc:
            self.failures.append(f"{method} {path}: {type(exc).__name__} {exc}")
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if not response.is_success:
            self.failures.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
            return None
        document: dict[str, str] = response.json()
        return document
