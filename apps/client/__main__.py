"""A client for people: `python -m apps.client post task_1 --name abc --wait`.

The API's address and key are read from SLUICE_URL and SLUICE_KEY. SLUICE_HOST is the Host header for the address of
an ingress, as http://127.0.0.1:30080. Results go to standard output, progress to the other.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

import httpx

from apps.client import Client, OutcomeUnknown, Problem, Task, TimedOut
from apps.contract.tasks import TASKS

FAILED, USAGE, UNKNOWN, INTERRUPTED = 1, 2, 3, 130
TICK_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; answers the exit status: 1 when it failed, 3 when the outcome is unknown."""
    options = _parser().parse_args(arguments)
    url, key = os.environ.get("SLUICE_URL", "http://127.0.0.1:8000"), os.environ.get("SLUICE_KEY", "")
    try:
        with _client(url, key, os.environ.get("SLUICE_HOST", "")) as client:
            return _run(client, options)
    except Problem as exc:
        about = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in exc.document.get("errors", []))
        hint = " (set SLUICE_KEY)" if exc.kind == "unauthenticated" else ""
        no_answer = f"The API at {url} does not answer: is it up, and is SLUICE_URL right?"
        print(about or f"{exc}{hint}" if exc.status else no_answer, file=sys.stderr)
        return FAILED
    except OutcomeUnknown as exc:
        print(exc, file=sys.stderr)
        return UNKNOWN
    except TimedOut as exc:
        print(exc, file=sys.stderr)
        return FAILED
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        print(f"SLUICE_URL must read http://host:port, and not {url}.", file=sys.stderr)
        return USAGE


def _client(url: str, key: str, host: str) -> Client:
    try:
        return Client(url, key, host=host)
    except ValueError as exc:
        sys.exit(f"SLUICE_KEY: {exc}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m apps.client", description="Post tasks and follow them.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    post = verbs.add_parser("post", help="post a task")
    tasks = post.add_subparsers(dest="task", required=True)
    for short_name, spec in TASKS.items():
        task = tasks.add_parser(short_name, help=spec.name)
        for name, field in spec.input.model_fields.items():
            if name != "task":
                task.add_argument(f"--{name.replace('_', '-')}", dest=f"input.{name}", required=field.is_required())
        task.add_argument("--wait", action="store_true", help="follow it to its end")
        _following(task)
    follow = verbs.add_parser("follow", help="show each state of a task, to its end")
    follow.add_argument("task_id")
    _following(follow)
    cancel = verbs.add_parser("cancel", help="cancel a task")
    cancel.add_argument("task_id")
    return parser


def _following(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="how long to wait (default: an hour)")


def _run(client: Client, options: argparse.Namespace) -> int:
    if options.verb == "cancel":
        return _show(client.cancel(options.task_id))
    if options.verb == "follow":
        return _follow(client, options.task_id, options.timeout_s)
    given = {name.removeprefix("input."): value for name, value in vars(options).items() if name.startswith("input.")}
    inputs = {"task": options.task} | {name: value for name, value in given.items() if value is not None}
    task_id = client.submit(inputs)
    return _follow(client, task_id, options.timeout_s) if options.wait else _show(Task(task_id, "PENDING"))


def _follow(client: Client, task_id: str, timeout_s: float) -> int:
    with _Progress(task_id) as progress:
        for task in client.stream(task_id, timeout_s):
            progress.state = task.status
            last = task
    return _show(last)


def _show(task: Task) -> int:
    print(json.dumps({"task_id": task.id, "task_status": task.status, "task_result": task.result}))
    return FAILED if task.status == "FAILURE" else 0


class _Progress:
    """A line on the terminal with the seconds and the state; a line for each state where there is no terminal."""

    def __init__(self, task_id: str) -> None:
        self.state = "PENDING"
        self._task_id = task_id
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()

    def _tick(self) -> None:
        started_s = time.monotonic()
        terminal = sys.stderr.isatty()
        shown = ""
        while True:
            over, state = self._over.is_set(), self.state
            line = f"{time.monotonic() - started_s:7.1f} s  {self._task_id}  {state}"
            if terminal:
                print(f"\r{line:<80}", end="\n" if over else "", file=sys.stderr, flush=True)
            elif state != shown:
                print(line, file=sys.stderr, flush=True)
            if over:
                return
            shown = state
            self._over.wait(TICK_S)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(INTERRUPTED)
