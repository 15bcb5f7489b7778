"""`make demo`: posts one task of each kind, and prints each change of state."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from apps.contract.example import example_input
from apps.contract.states import FINAL
from apps.tasks import TASKS
from ops.command import Unusable, command_line
from ops.credentials import load_or_make
from ops.servers.endpoints import Folder, load_running

DEADLINE_S = 300.0
POLL_S = 0.25  # short enough to see each state; ?wait= would only return the last one


class Failed(Unusable):
    """A task was refused, did not succeed, or did not end before the deadline."""


class Posted:
    """A posted task and its last known state."""

    def __init__(self, url: str, key: str, payload: dict[str, object]) -> None:
        self._url, self._key = url, key
        self.name, self.state = str(payload["task"]), ""
        self._start = time.monotonic()
        self.id: str = _call(url, key, "POST", "/tasks", payload)["task_id"]
        print(f"          {self.name}  accepted as {self.id}", flush=True)

    def look(self) -> None:
        """Read the task's state, and print a change. A final state is printed with the result."""
        answer = _call(self._url, self._key, "GET", f"/tasks/{self.id}")
        if answer["task_status"] == self.state:
            return
        self.state = answer["task_status"]
        result = json.dumps(answer["task_result"]) if self.state in FINAL else ""
        print(f"{time.monotonic() - self._start:7.1f} s  {self.name}  {self.state} {result}".rstrip(), flush=True)


def run(url: str, key: str, while_waiting: Callable[[], None] = lambda: None, deadline_s: float = DEADLINE_S) -> None:
    """Post the tasks, and print their states until all have ended. `while_waiting` is called in each poll.

    Raises Failed if a task is refused, does not succeed, or does not end within `deadline_s` seconds.
    """
    end = time.monotonic() + deadline_s
    tasks = [Posted(url, key, payload) for payload in inputs()]
    while unfinished := [task for task in tasks if task.state not in FINAL]:
        if time.monotonic() > end:
            raise Failed(f"The tasks did not end within {deadline_s:.0f} s: see .local/logs/worker.log.")
        for task in unfinished:
            task.look()
        while_waiting()
        time.sleep(POLL_S)
    if unsuccessful := [task.name for task in tasks if task.state != "SUCCESS"]:
        raise Failed(f"{' and '.join(unsuccessful)} did not succeed: see .local/logs/worker.log.")


def inputs() -> list[dict[str, object]]:
    """One input for each task in the registry: the example of its input model. Tasks without an example are printed."""
    made: list[dict[str, object]] = []
    for short_name, spec in TASKS.items():
        example = example_input(spec.input)
        if example is not None:
            made.append(example)
        else:
            print(f"{short_name} is skipped: add examples=[...] to the fields of {spec.input.__name__}.", flush=True)
    return made


def _call(url: str, key: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as exc:
        raise Failed(f"The API at {url} does not answer ({exc}): see .local/logs/api.log.") from exc
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST:
        raise Failed(f"{method} {path} was answered with {answer.status}: {text[:300]}")
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def main() -> None:
    """Run the demo against the system that was started in this folder."""
    folder = Folder()
    endpoints = load_running(folder)
    run(endpoints.api_url, load_or_make(folder.credentials).api_key)


if __name__ == "__main__":
    command_line(main)
