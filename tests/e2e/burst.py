"""A burst: 900 tasks of one second each, posted at once to two workers under one of the tests' overlays."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ops.command import ROOT
from tests.e2e import objects
from tests.e2e.curve import SERVICE_S
from tests.e2e.system import System

FOLDER = ROOT / "build" / "e2e"
TASKS = 900
MINIMUM, MAXIMUM = 2, 30
# the shortest time in which two workers can finish the burst
ALONE_S = TASKS * SERVICE_S / MINIMUM
DRAIN_TIMEOUT_S = 2 * ALONE_S


def rest(system: System, overlay: str) -> None:
    """Apply an overlay of the tests, wait until it runs with two idle workers, and empty the ledger."""
    objects.apply(objects.OVERLAYS / overlay)
    for each in (objects.API, objects.RECORDER, objects.WORKER):
        objects.rolled_out(each)
    objects.settled(objects.WORKER, MINIMUM)
    system.forget()


@dataclass(frozen=True)
class Posted:
    """A burst in progress: the ids of its tasks, and the time at which it was posted."""

    ids: list[str]
    at_s: float


def post(system: System, overlay: str) -> list[str]:
    """Post the burst; returns the ids of its tasks."""
    return system.post([f"{overlay}-{number}" for number in range(TASKS)])


@contextmanager
def measuring() -> Iterator[None]:
    """Hold a lock so that no test that needs much CPU runs in the other session while a burst is measured."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "measuring.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
