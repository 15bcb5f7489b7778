"""Faults old-api and old-worker: an API or a worker of an older version, as during a release or a rollback.

The API runs a fixed commit; the worker must still finish the messages of this API. The worker runs this tree with an
older contract (tests/chaos/tasks.py): the contract lacks a field, a task and a queue that the clients' posts need. A
worker of the fixed commit would fail each message of a newer API, because the commit is older than the promise.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from apps.contract import topology
from ops.command import Unusable
from ops.servers.child import Child
from tests.chaos.faults import Harm, fault, pids
from tests.chaos.tasks import OLDER
from tests.chaos.world import World
from tests.harness.fork_server import Forked
from tests.harness.system import ROOT, until

# The last commit whose API sends an input as an object instead of its text.
COMMIT = "0ddeda5abf97"
READY_S = 90.0
OK = 200
STOP_S = 30.0
# The queue that a worker of the previous release reads: the other work queue is new.
OLDER_QUEUES = topology.WORK_QUEUES[0]


def check_out(folder: Path) -> None:
    """Extract the commit's files to the folder. Unusable if this clone does not have the commit."""
    made = subprocess.run(
        ["git", "archive", COMMIT, "apps", "tests", "local"], cwd=ROOT, check=False, capture_output=True
    )
    if made.returncode:
        raise Unusable(
            f"The faults old-api and old-worker need commit {COMMIT}, which this clone does not have: run "
            "`git fetch --unshallow`, or clone the repository with its history."
        )
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")


@fault("old-api", "apis", seconds=(2, 15))
def old_api(world: World, choice: float) -> Iterator[Harm]:
    """Replace one of two APIs with the older commit, as after a partial rollback."""
    api = world.apis[int(choice * len(world.apis))]
    present = api.child
    command = [sys.executable, "-m", *present.command] if isinstance(present, Forked) else present.command
    old = Child("api", command, log=present.log, env=present.env, cwd=world.older)
    world.scrape(api)
    victim = present.pid
    world.replace_api(api, old)
    try:
        until(lambda: api.get("/livez") == OK, READY_S, "the older API's port")
        yield Harm(f"{world.name(present)} of {COMMIT}", (victim,))
        world.scrape(api)
        old.stop(STOP_S)
    finally:
        world.replace_api(api, present)
    until(lambda: api.get("/livez") == OK, READY_S, "the API's port")


@fault("old-worker", "workers", seconds=(2, 15))
def old_worker(world: World, choice: float) -> Iterator[Harm]:
    """Restart one worker with the contract of the previous release."""
    worker = world.workers[int(choice * len(world.workers))]
    command = worker.command
    victims = _restarted(world, worker)
    try:
        yield Harm(world.name(worker), victims)
    finally:
        worker.env.pop(OLDER)
        worker.command = command
    _stop_and_start(world, worker)


def _restarted(world: World, worker: Child) -> tuple[int, ...]:
    """Restart the worker with the older contract; returns the pids of the processes that this ends."""
    victims = pids(worker)
    worker.env[OLDER] = "1"
    worker.command = [*worker.command, "-Q", OLDER_QUEUES]
    _stop_and_start(world, worker)
    return victims


def _stop_and_start(world: World, worker: Child) -> None:
    worker.stop(STOP_S)
    world.restart(worker)
    world.system.wait_ready(worker, READY_S)
