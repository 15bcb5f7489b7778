"""`make up`: starts servers and processes under one supervisor, runs each task once, and runs until Ctrl-C.

Stops everything in reverse order and leaves no process behind. The exit status is 0 after Ctrl-C or SIGTERM, and 1
after a failure, which is printed as one sentence.
"""

import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from apps.contract.example import example_input
from apps.contract.queues import require_queues
from apps.tasks import TASKS
from ops import command, demo
from ops.command import Unusable
from ops.credentials import Credentials, load_or_make
from ops.servers import backing, processes
from ops.servers.backing import Backing
from ops.servers.child import POLL_S, survives_us
from ops.servers.endpoints import Endpoints, Folder, save
from ops.servers.processes import Process

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the system until a signal of ENDINGS or a failure."""
    for number in ENDINGS:
        signal.signal(number, _interrupt)
    require_queues(TASKS)
    status = 0
    try:
        with ExitStack() as stack:
            try:
                _run(stack, Folder(), os.environ)
            finally:
                _ignore_signals()  # a second Ctrl-C would leave some processes running
    except command.REFUSAL as exc:
        print(command.sentence(exc), file=sys.stderr, flush=True)
        status = 1
    except KeyboardInterrupt:
        print("Everything is stopped.", flush=True)
    sys.exit(status)


def _run(stack: ExitStack, folder: Folder, environment: Mapping[str, str]) -> None:
    stack.enter_context(folder.locked())
    folder.run.unlink(missing_ok=True)  # a killed run leaves it behind, and other commands would read it
    url = _api_url(environment)
    credentials = load_or_make(folder.credentials)
    print(f"Logs: {folder.logs}/<name>.log. Credentials: {folder.credentials}", flush=True)
    if why := survives_us():
        print(f"Note: {why}.", flush=True)
    backed = backing.start(stack, folder, credentials, environment)
    endpoints = Endpoints(url, backed.broker, backed.redis, backed.management.url if backed.management else None)
    running = _start_processes(stack, folder, endpoints, credentials, environment)
    save(endpoints, folder.run)
    stack.callback(folder.run.unlink, missing_ok=True)
    _run_demo(url, credentials, lambda: _watch(backed, running))
    print(_how_to_use(endpoints, folder), flush=True)
    while True:
        _watch(backed, running)
        time.sleep(POLL_S)


def _start_processes(
    stack: ExitStack, folder: Folder, endpoints: Endpoints, credentials: Credentials, given: Mapping[str, str]
) -> list[Process]:
    """Start the recorder, the worker and the API, and wait until all are ready. They are stopped in reverse order."""
    of_recorder = endpoints.environment("recorder", credentials, given)
    of_worker = endpoints.environment("worker", credentials, given)
    of_api = {**endpoints.environment("api", credentials, given), "API_KEYS": credentials.api_keys}
    of_api.pop("API_KEYS_FILE", None)  # the API refuses to start with both; the generated keys are used
    running = [
        processes.recorder(folder, of_recorder),
        processes.worker(folder, of_worker),
        processes.api(folder, of_api, endpoints.api_url),
    ]
    for process in running:
        stack.callback(process.stop)
        process.start()
    for process in running:
        process.wait_ready()
    print(f"API, one worker and the recorder are ready: {endpoints.api_url}", flush=True)
    return running


def _run_demo(url: str, credentials: Credentials, watch: Callable[[], None]) -> None:
    """Run each task once. A failure is only printed, as the tasks may wait behind a backlog of an earlier run."""
    try:
        demo.run(url, credentials.api_key, watch)
    except demo.Failed as exc:
        print(f"{exc}\nThe system keeps running; `make demo` tries again.", file=sys.stderr, flush=True)


def _watch(backed: Backing, running: list[Process]) -> None:
    """Restart the processes of apps/ that have ended. Raises Unusable if a server has ended."""
    for server in backed.children:
        if not server.alive:
            raise Unusable(
                f"{server.name} ended, so everything is stopped; its log {server.log} ends:\n{server.last_lines()}"
            )
    for process in running:
        process.keep_alive()


def _api_url(environment: Mapping[str, str]) -> str:
    """The API's URL. Raises Unusable if the port is in use, is not a number, or is reserved for root."""
    text = environment.get("API_PORT", "8000")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as in uvicorn: a port in TIME_WAIT is free
            probe.bind(("127.0.0.1", int(text)))
    except (ValueError, OverflowError):
        raise Unusable(f"API_PORT is {text!r}: set it to a number from 1024 to 65535.") from None
    except PermissionError:
        raise Unusable(
            f"Only root may use port {text}: choose a port from 1024 on, as in `API_PORT=8001 make up`."
        ) from None
    except OSError as exc:
        raise Unusable(
            f"Port {text} is in use ({exc.strerror}): end the program that uses it, or run `API_PORT=8001 make up`."
        ) from None
    return f"http://127.0.0.1:{int(text)}"


def _how_to_use(endpoints: Endpoints, folder: Folder) -> str:
    key = f"$(sed -n 's/^API_KEYS=[^:]*:\\([^,]*\\).*/\\1/p' {shlex.quote(str(folder.credentials))})"
    examples = (example_input(spec.input) for spec in TASKS.values())
    example = next(filter(None, examples), {"task": "..."})
    body = f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(example))}"
    management = endpoints.management_url or "the one in CELERY_BROKER_URL"
    return "\n".join(
        (
            "The system is up. Ctrl-C stops everything.",
            f"  API         {endpoints.api_url}  (documentation: {endpoints.api_url}/docs)",
            f"  RabbitMQ    {management}  (credentials: make rabbitmq-ui)",
            "  Post a task, in another terminal:",
            f'  curl -sS {endpoints.api_url}/tasks -H "Authorization: Bearer {key}" {body}',
        )
    )


def _interrupt(number: int, _frame: object) -> None:
    _ignore_signals()
    print(f"\n{signal.Signals(number).name}: stopping in reverse order; this takes some seconds.", flush=True)
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
