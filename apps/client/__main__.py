"""The command-line client: `python -m apps.client post NAME --FIELD VALUE --wait`, or `post --wait '{"task": ...}'`.

The API's URL and key are read from SLUICE_URL and SLUICE_KEY. SLUICE_HOST is the Host header if the URL is the address
of an ingress, such as http://127.0.0.1:30080. Results are written to standard output, progress to standard error.
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

from apps.client import Client, OutcomeUnknown, Problem, Task, TimedOut, post
from apps.contract.example import example_input
from apps.contract.tasks import Registry
from apps.tasks import TASKS

FAILED, USAGE, UNKNOWN, INTERRUPTED = 1, 2, 3, 130
TICK_S = 0.1


def main(arguments: Sequence[str] | None = None, registry: Registry = TASKS) -> int:
    """Run a command; returns the exit status: 1 if it failed, 3 if the outcome is unknown."""
    options = _options(arguments, registry)
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
    except httpx.ConnectError as exc:
        print(f"SLUICE_URL: no key was sent to {url} ({exc}); SSL_CERT_FILE names a CA of your own.", file=sys.stderr)
        return FAILED
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        print(f"SLUICE_URL must read http://host:port, and not {url}.", file=sys.stderr)
        return USAGE


def _client(url: str, key: str, host: str) -> Client:
    try:
        return Client(url, key, host=host)
    except ValueError as exc:
        sys.exit(f"SLUICE_KEY: {exc}.")
    except ImportError as exc:  # a proxy in the environment needs a package
        sys.exit(str(exc))


def _options(arguments: Sequence[str] | None, registry: Registry) -> argparse.Namespace:
    """Parse the command line, including the body of a post."""
    parser, post_parser = _parsers(registry)
    options = parser.parse_args(arguments)
    if options.verb == "example":
        (options.example,) = _example(registry)
    if options.verb != "post":
        return options
    line = [] if options.task is None else [options.task, *options.rest]
    if options.line is not None:
        try:
            line = [*post.words(options.line), *line]
        except ValueError as exc:
            post_parser.error(f"{options.line!r}: {exc}")
        line = line or _example(registry)
    if not line:
        post_parser.error("the following arguments are required: TASK")
    task, *rest = line
    if task.startswith("{"):
        if rest:
            post_parser.error(f"unexpected after the JSON: {' '.join(rest)}")
        options.body = task
        return options
    if task not in registry:
        post_parser.error(f"no task is called {task!r}: choose from {', '.join(registry)}")
    of_task = post.parse(registry[task], rest)
    options.body = of_task.body
    options.wait = options.wait or getattr(of_task, "wait", False)
    options.timeout_s = getattr(of_task, "timeout_s", None) or options.timeout_s
    return options


def _parsers(registry: Registry) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="python -m apps.client", description="Post tasks and follow them.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    examples = "\n".join(f"  {post.command(spec)}" for spec in registry.values())
    post_parser = verbs.add_parser(
        "post",
        help="post a task",
        description="Post a task. `post TASK --help` shows the options of a task.",
        epilog=f"tasks, with examples:\n{examples}".replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    post_parser.add_argument("--wait", action="store_true", help="wait for the end of the task")
    post_parser.add_argument("--line", help="TASK and its options as one string; empty: the first task's example")
    _following(post_parser)
    post_parser.add_argument(
        "task", nargs="?", metavar="TASK", help="the task's name, or the whole input as a JSON object"
    )
    post_parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="the options of the task")
    verbs.add_parser("example", help="print an example input of the first task as JSON")
    follow = verbs.add_parser("follow", help="show each state of a task until its end")
    follow.add_argument("task_id")
    _following(follow)
    cancel = verbs.add_parser("cancel", help="cancel a task")
    cancel.add_argument("task_id")
    return parser, post_parser


def _example(registry: Registry) -> list[str]:
    """The first example of any task, in the order of the tasks."""
    for spec in registry.values():
        if example := example_input(spec.input):
            return [json.dumps(example)]
    sys.exit("No task has an example: add examples=[...] to the fields of its model, or name the task to post.")


def _following(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="seconds to wait (default: 3600)")


def _run(client: Client, options: argparse.Namespace) -> int:
    if options.verb == "example":
        print(options.example)
        return 0
    if options.verb == "cancel":
        return _show(client.cancel(options.task_id))
    if options.verb == "follow":
        return _follow(client, options.task_id, options.timeout_s)
    task_id = client.submit(options.body)
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
    """Shows seconds and state in a line that is updated on a terminal; otherwise prints a line for each state."""

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
