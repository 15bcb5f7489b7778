"""Runs Locust against one address, reads its ledger, and prints the progress."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loadtest import shapes
from loadtest.ledger import Follower, Ledger
from loadtest.sample import Usage, used
from loadtest.shapes import Shape
from ops.command import ROOT, Unusable
from ops.servers.child import Child

PERIOD_S = 1.0
PROGRESS_S = 5.0
# time for Locust to import its modules, and to end
START_S = 30.0
STOP_S = 30.0
Watch = Callable[[float, Ledger, Usage], None]


class Address(NamedTuple):
    """The URL to load, the Host header (empty: the host of the URL), and the bearer key."""

    url: str
    host: str = ""
    key: str = ""


def load(shape: Shape, address: Address, path: Path, watch: Watch) -> tuple[Ledger, float]:
    """Run the shape to its end. Returns (the ledger, start of the run as time.monotonic() in seconds).

    The ledger's file is `path`. `watch` is called every second with the time since the start in seconds, the ledger so
    far, and Locust's usage. Raises Unusable if Locust ends without having run.
    """
    began_s = time.monotonic()
    environment = os.environ | {
        shapes.SHAPE: shape.name, "LONG_S": str(shape.long_s), "SHORT_S": str(shape.short_s),
        "LOAD_LEDGER": str(path), "LOAD_STARTED_S": str(began_s), "PYTHONUNBUFFERED": "1",
        "SLUICE_HOST": address.host, "SLUICE_KEY": address.key,
    }  # fmt: skip
    command = [sys.executable, "-m", "locust", "--locustfile", "loadtest/locustfile.py", "--headless"]
    command += ["--host", address.url]
    command += ["--stop-timeout", f"{shape.patience_s:.0f}", "--loglevel", "WARNING", "--only-summary"]
    child = Child("Locust", command, log=path.with_suffix(".log"), env=environment, cwd=ROOT)
    follower = Follower(path)
    child.start()
    try:
        _follow(child, follower, shape, began_s, watch)
        cut = child.alive
    finally:
        child.stop()
    ledger = follower.read()
    ledger.cut = cut
    if not ledger.seconds:
        raise Unusable(f"Locust did not run; its log {child.log} ends:\n{child.last_lines()}")
    return ledger, began_s


def _follow(child: Child, follower: Follower, shape: Shape, began_s: float, watch: Watch) -> None:
    end_s = began_s + START_S + shape.length_s + shape.patience_s + STOP_S
    turn_s = shown_s = began_s
    while child.alive and time.monotonic() < end_s:
        ledger = follower.read()
        at_s = time.monotonic() - began_s
        watch(at_s, ledger, used([child.pid])[child.pid])
        if time.monotonic() - shown_s >= PROGRESS_S:
            shown_s = time.monotonic()
            print(_line(at_s, ledger, shape), flush=True)
        turn_s = max(turn_s + PERIOD_S, time.monotonic())
        time.sleep(max(0.0, turn_s - time.monotonic()))


def _line(at_s: float, ledger: Ledger, shape: Shape) -> str:
    accepted, finished = len(ledger.tasks), len(ledger.finished)
    users, failures = (ledger.seconds[-1][1], ledger.seconds[-1][3]) if ledger.seconds else (0, 0)
    waiting_s = max((at_s - task.accepted_s - shape.task_s[task.task] for task in ledger.open), default=0.0)
    return (
        f"{at_s:6.0f} s  {users:5d} users  {accepted:7d} accepted  {finished:7d} finished  {failures:4d} failures  "
        f"oldest waits {max(0.0, waiting_s):.1f} s"
    )
