"""`make load SHAPE=... [HOST=...]`: loads a stub to measure the noise floor, then the system; checks gates, reports.

The exit status is 0 if every gate held, 1 if a gate failed or a part could not be started, and 3 for a void run, for
example because Locust itself was too busy.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from apps.client import AsyncClient, OutcomeUnknown, Problem, TimedOut
from loadtest import cluster_target, gates, host, locust_run, report, shapes, system
from loadtest.cluster_target import Cluster
from loadtest.folder import emptied
from loadtest.gates import Seen, Verdict
from loadtest.host import Host
from loadtest.ledger import Ledger
from loadtest.locust_run import Address
from loadtest.report import Run
from loadtest.sampler import Sampler
from loadtest.shapes import Shape
from loadtest.system import System
from ops import command
from ops.command import ROOT, Unusable
from ops.servers.child import Child, until
from ops.servers.endpoints import Folder
from ops.servers.ports import free_ports, is_open

READERS = 50
STUB_DEADLINE_S = 20.0
# RabbitMQ updates the figures of its queues every 5 s, so a single sample may be older than the last message.
FIGURES_AGE_S = 5.0
# Twice the timeout of one request.
SEEN_TIMEOUT_S = 20.0
Target = System | Host | Cluster


def main() -> None:
    """Run one load test, and exit with the status of its verdict."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # SystemExit ends the started processes
    try:
        shape = shapes.load(arguments.shape)
        if arguments.apis:
            shape = shape.model_copy(update={"local": shape.local.model_copy(update={"apis": arguments.apis})})
        verdict = judge(shape, arguments)
    except command.REFUSAL as exc:
        sys.exit(command.sentence(exc))
    except KeyboardInterrupt:
        sys.exit("Stopped. All started processes have ended.")
    sys.exit(verdict.exit_status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description="Load a system, and check the gates.")
    parser.add_argument("shape", help="a name in loadtest/shapes.toml")
    parser.add_argument("--host", help="URL of the system, http://host:port; by default a local system is started")
    parser.add_argument("--cluster", action="store_true", help="HOST is the ingress of the kubectl context's cluster")
    parser.add_argument("--apis", type=int, help="number of API processes of the local system, instead of the shape's")
    parser.add_argument("--code", type=Path, default=ROOT, help="folder with apps/ for the local system (this project)")
    parser.add_argument("--print-report", action="store_true", help="also print the report's JSON, for a pod's log")
    parser.add_argument(
        "--folder", type=Path, help="folder of the report (build/load/<shape>); an earlier report in it is removed"
    )
    arguments = parser.parse_args()
    if arguments.cluster and not arguments.host:
        parser.error("--cluster needs --host (HOST=http://...), the address of the cluster's NGINX.")
    if arguments.host and urlsplit(arguments.host).scheme not in {"http", "https"}:
        parser.error(f"--host {arguments.host} is not a URL: write it as http://host:port.")
    if arguments.apis is not None and (arguments.host or arguments.apis < 1):
        parser.error("--apis (APIS=) is the number of local API processes: set it to 1 or more, and omit --host.")
    return arguments


def judge(shape: Shape, arguments: argparse.Namespace) -> Verdict:
    """Measure the stub, load the system, and write the report.

    Raises Unusable if the system cannot be started or observed, or if Locust does not run.
    """
    folder = arguments.folder or ROOT / "build" / "load" / shape.name
    # a user needs two files in the proxy: its own connection, and the proxy's connection to the API
    open_files = 2 * shape.users_max + 1000
    system.raise_open_files(open_files)
    with ExitStack() as ends:
        # checked first, because a system that cannot be observed must not be loaded
        there = _there(arguments, ends)
        ends.enter_context(emptied(folder))
        print(f"{shape.name}: {shape.about} {report.load_in_words(shape)}", flush=True)
        print("Loading the stub, to measure the latency of Locust and this machine.", flush=True)
        with _stub(folder) as url:
            floor, _ = locust_run.load(shape, Address(url), folder / "stub.jsonl", lambda *_: None)
        target = there or ends.enter_context(
            system.started(shape, Folder(folder / "system"), open_files, arguments.code)
        )
        print(f"Loading {target.url}: {target.about.get('size', '')}", flush=True)
        sampler = Sampler(target)
        address = Address(target.url, target.host, target.key)
        ledger, began_s = locust_run.load(shape, address, folder / "run.jsonl", sampler.look)
        _drain(target, shape)
        asyncio.run(_settle(target, ledger, began_s))
        seen = _seen(target)
    verdict = gates.judged(shape, ledger, floor, seen)
    print("\n".join(report.lines(verdict)), flush=True)
    seen_not, looks = sampler.missing, len(sampler.missing) + len(sampler.samples)
    if seen_not:
        print(f"{len(seen_not)} of {looks} samples are missing, the first at {seen_not[0]}", flush=True)
    written = report.write(folder, Run(shape, target.about, ledger, floor, sampler.samples, verdict, seen_not))
    print(f"Report: {written}", flush=True)
    if arguments.print_report:
        print(written.with_suffix(".json").read_text())
    return verdict


def _there(arguments: argparse.Namespace, ends: ExitStack) -> Host | Cluster | None:
    """The existing system, or None after installing the programs of a local system if no host is given.

    Raises Unusable if the system does not answer or cannot be observed, or the programs cannot be installed.
    """
    if not arguments.host:
        system.ensure()
        return None
    there: Host | Cluster
    if arguments.cluster:
        there = ends.enter_context(cluster_target.entered(arguments.host))
        host.check(there.url, there.key, there.host)
    else:
        there = Host(arguments.host)
    host.check_tasks(there.url, there.key, there.host)
    return there


@contextmanager
def _stub(folder: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "loadtest.stub", str(port)]
    child = Child("the stub", command, log=folder / "stub-server.log", env=os.environ, cwd=ROOT)
    child.start()
    try:
        child.ready(lambda: is_open(port), STUB_DEADLINE_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


def _drain(target: Target, shape: Shape) -> None:
    """Wait until queues stay empty for FIGURES_AGE_S, up to the shape's patience. Unreadable queues count as full."""
    full_s = time.monotonic()

    def drained() -> bool:
        nonlocal full_s
        try:
            full = any(target.queues().values())
        except Unusable:
            full = True
        if full:
            full_s = time.monotonic()
        return time.monotonic() - full_s > FIGURES_AGE_S

    with contextlib.suppress(TimeoutError):
        until(drained, shape.patience_s + FIGURES_AGE_S, "an empty queue")


async def _settle(target: Target, ledger: Ledger, began_s: float) -> None:
    """Request once each result that no client has received during the load."""
    limit = asyncio.Semaphore(READERS)

    async def ask(client: AsyncClient, task_id: str, name: str) -> None:
        with contextlib.suppress(TimedOut, Problem, OutcomeUnknown):
            async with limit:
                task = await client.result(task_id, timeout_s=shapes.SLACK_S)
            if task.status != "SUCCESS" or task.result != {"name": name}:
                ledger.wrong.append(f"{task_id}: {task.status} {task.result}")
            ledger.settle(task_id, time.monotonic() - began_s)

    async with AsyncClient(target.url, target.key, host=target.host) as client, asyncio.TaskGroup() as asking:
        for task in ledger.open:
            asking.create_task(ask(client, task.id, task.name))


def _seen(target: Target) -> Seen:
    """The counters at the end. Retried for SEEN_TIMEOUT_S: without counters, the run has no verdict and no report."""
    end_s = time.monotonic() + SEEN_TIMEOUT_S
    while True:
        try:
            return target.seen()
        except Unusable:
            if time.monotonic() > end_s:
                raise
        time.sleep(1)


if __name__ == "__main__":
    main()
