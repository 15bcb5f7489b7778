"""`make load SHAPE=... [HOST=...]`: the stub's noise floor, the load, the gates, the report.

Exit status 0 only if every gate held; 1 if one did not, or something could not be started; 3 for a void run, in which
Locust itself was too busy to tell.
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
from loadtest import cluster_target, drive, gates, host, report, shapes, system
from loadtest.cluster_target import Cluster
from loadtest.drive import Address
from loadtest.folder import emptied
from loadtest.gates import Seen, Verdict
from loadtest.host import Host
from loadtest.ledger import Ledger
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
# RabbitMQ's own figures of its queues may be so old: one look at them may be at those of before the last message.
FIGURES_AGE_S = 5.0
# Twice what one question may take.
SEEN_TIMEOUT_S = 20.0
Target = System | Host | Cluster


def main() -> None:
    """Run one load."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended on the way out
    try:
        shape = shapes.load(arguments.shape)
        if arguments.apis:
            shape = shape.model_copy(update={"local": shape.local.model_copy(update={"apis": arguments.apis})})
        verdict = judge(shape, arguments)
    except command.REFUSAL as exc:
        sys.exit(command.sentence(exc))
    except KeyboardInterrupt:
        sys.exit("Stopped; everything that was started has ended.")
    sys.exit(verdict.exit_status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description="Load a system, and judge it.")
    parser.add_argument("shape", help="a name in loadtest/shapes.toml")
    parser.add_argument("--host", help="what to load, http://host:port; without it the local system is started")
    parser.add_argument("--cluster", action="store_true", help="HOST leads to the cluster that kubectl points to")
    parser.add_argument("--apis", type=int, help="API processes of the local system, in place of the shape's number")
    parser.add_argument("--code", type=Path, default=ROOT, help="where the local system's apps/ are; this project")
    parser.add_argument("--print-report", action="store_true", help="print the JSON too: what a pod's log can keep")
    parser.add_argument(
        "--folder", type=Path, help="of the report; build/load/<shape> if not given; an earlier report in it is removed"
    )
    arguments = parser.parse_args()
    if arguments.cluster and not arguments.host:
        parser.error("--cluster needs --host (HOST=http://...), the address of the cluster's NGINX.")
    if arguments.host and urlsplit(arguments.host).scheme not in {"http", "https"}:
        parser.error(f"--host {arguments.host} is no address: write it as http://host:port.")
    if arguments.apis is not None and (arguments.host or arguments.apis < 1):
        parser.error("--apis (APIS=) is how many API processes are started here, 1 or more: it goes without --host.")
    return arguments


def judge(shape: Shape, arguments: argparse.Namespace) -> Verdict:
    """The whole of it."""
    folder = arguments.folder or ROOT / "build" / "load" / shape.name
    # each user's connection, and in the proxy that of the API behind it
    open_files = 2 * shape.users_max + 1000
    system.raise_open_files(open_files)
    with ExitStack() as ends:
        # looked at before anything is started: what cannot be seen needs no load
        there = _there(arguments, ends)
        ends.enter_context(emptied(folder))
        print(f"{shape.name}: {shape.about} {report.load_in_words(shape)}", flush=True)
        print("First the stub, for what Locust and this machine cost by themselves.", flush=True)
        with _stub(folder) as url:
            floor, _ = drive.load(shape, Address(url), folder / "stub.jsonl", lambda *_: None)
        target = there or ends.enter_context(
            system.started(shape, Folder(folder / "system"), open_files, arguments.code)
        )
        print(f"Now {target.url}: {target.about.get('size', '')}", flush=True)
        sampler = Sampler(target)
        address = Address(target.url, target.host, target.key)
        ledger, began_s = drive.load(shape, address, folder / "run.jsonl", sampler.look)
        _drain(target, shape)
        asyncio.run(_settle(target, ledger, began_s))
        seen = _seen(target)
    verdict = gates.judged(shape, ledger, floor, seen)
    print("\n".join(report.lines(verdict)), flush=True)
    seen_not, looks = sampler.missing, len(sampler.missing) + len(sampler.samples)
    if seen_not:
        print(f"Not seen {len(seen_not)} of {looks} times, first at {seen_not[0]}", flush=True)
    written = report.write(folder, Run(shape, target.about, ledger, floor, sampler.samples, verdict, seen_not))
    print(f"Report: {written}", flush=True)
    if arguments.print_report:
        print(written.with_suffix(".json").read_text())
    return verdict


def _there(arguments: argparse.Namespace, ends: ExitStack) -> Host | Cluster | None:
    """What runs already, if a host is given; else all is there that the local system is made of."""
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
    """Wait until the queues are empty and stay so, as long as a task may take. One that is not seen counts as full."""
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
    """Ask once for each result that no client waited for to its end."""
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
    """What it says at the end, asked again for a while: without it the whole run has no verdict and no report."""
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
