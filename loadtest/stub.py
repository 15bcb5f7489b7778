"""The stub for the noise floor: a server with the same HTTP interface that only answers when a task's time is over.

Latencies of the stub are those of Locust, the kernel and this machine. `python -m loadtest.stub PORT` listens on a
loopback port until it is ended.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httptools
import uvloop

from loadtest.sample import ACCEPTED

BACKLOG = 4096
Answer = tuple[int, dict[str, Any]]
REASONS = {200: "OK", 202: "Accepted", 404: "Not Found", 422: "Unprocessable Content", 500: "Internal Server Error"}


class Tasks:
    """The tasks of the stub. Tests replace this class by subclasses with faults."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[float, str]] = {}
        """Task id -> (time of its end, its name)."""
        self._keys: dict[str, Any] = {}
        self.accepted: Counter[str] = Counter()

    def post(self, body: dict[str, Any], key: str | None) -> Answer:
        """Answer POST /tasks and /tasks/batch, which have different bodies."""
        if body.get("seconds", 0) < 0:  # from `host.check_tasks`
            return 422, {
                "type": "urn:sluice:problem:invalid",
                "errors": [{"loc": [body["task"], "seconds"], "msg": "-"}],
            }
        if key is None or key not in self._keys:
            many = [self.accept(given) for given in body.get("tasks", [body])]
            made = {"outcomes": [{"status": 202, **one} for one in many]} if "tasks" in body else many[0]
            if key is None:
                return 202, made
            self._keys[key] = made
        return 202, self._keys[key]

    def accept(self, given: dict[str, Any]) -> dict[str, str]:
        """Start a task, and return its id and state."""
        task_id = str(uuid4())
        self._tasks[task_id] = (time.monotonic() + given["seconds"], given["name"])
        self.accepted[given["task"]] += 1
        return {"task_id": task_id, "task_status": "PENDING"}

    def left_s(self, task_id: str) -> float:
        """Seconds until the task ends."""
        return self._tasks[task_id][0] - time.monotonic()

    def get(self, task_id: str) -> Answer:
        """Answer GET /tasks/{id} with the current state."""
        if task_id not in self._tasks:
            return 404, {"type": "urn:sluice:problem:not-found"}
        if self.left_s(task_id) > 0:
            return 200, {"task_id": task_id, "task_status": "STARTED", "task_result": None}
        return 200, {"task_id": task_id, "task_status": "SUCCESS", "task_result": self.result(task_id)}

    def result(self, task_id: str) -> dict[str, str]:
        """The result of an ended task."""
        return {"name": self._tasks[task_id][1]}

    def metrics(self) -> str:
        """The counter of accepted tasks in Prometheus' text format."""
        counts = (f'{ACCEPTED}{{task="stub:{task}"}} {count}\n' for task, count in self.accepted.items())
        return f"# TYPE {ACCEPTED} counter\n" + "".join(counts)


class Http(asyncio.Protocol):
    """One connection, which handles one request after the other."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._key: str | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = urlsplit(url.decode())

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"idempotency-key":
            self._key = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, query = self._url.path, self._url.query
        if self._parser.get_method() == b"POST":
            self._answer(*self._tasks.post(json.loads(self._body), self._key))
        elif path == "/metrics":
            self._send(200, self._tasks.metrics().encode(), "text/plain")
        elif path.startswith("/tasks/"):
            self._wait(path.removeprefix("/tasks/"), float(parse_qs(query).get("wait", ["0"])[0]))
        else:
            self._answer(200, {})
        self._key, self._body = None, b""

    def _wait(self, task_id: str, wait_s: float) -> None:
        status, document = self._tasks.get(task_id)
        left_s = self._tasks.left_s(task_id) if document.get("task_status") == "STARTED" else 0
        if left_s > 0 and wait_s > 0:
            asyncio.get_running_loop().call_later(min(left_s, wait_s), lambda: self._answer(*self._tasks.get(task_id)))
        else:
            self._answer(status, document)

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)


async def serve(port: int, tasks: Tasks) -> None:
    """Listen until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http(tasks), "127.0.0.1", port, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


def main(kind: type[Tasks] = Tasks) -> None:
    """Serve on the port in the command line until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.stub", description="Answer without working.")
    parser.add_argument("port", type=int)
    uvloop.run(serve(parser.parse_args().port, kind()))


if __name__ == "__main__":
    main()
