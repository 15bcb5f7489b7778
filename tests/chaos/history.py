"""The history of a finished run, which the checker examines."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from apps.contract import topology
from tests.chaos.journal import STARTED, Crashed, Effect, Failed, Flood, Injected, Post, Record, Seen, Try, read
from tests.chaos.world import EFFECTS_FILE, FAULTS_FILE, LEDGER_FILE, Life, World
from tests.harness.system import ROOT

READERS = 8
READ_TIMEOUT_S = 20.0
# Share of ids that are read from both APIs, whose answers must be equal.
READ_TWICE = 0.02


@dataclass(frozen=True)
class Read:
    """An API's answer for an id at the end: `state` is the task's state, or the HTTP status if it is not 200."""

    task_id: str
    state: str
    result: Any = None


@dataclass(frozen=True)
class Stored:
    """A final state that was stored: the script returned "stored"."""

    task_id: str
    state: str
    at_s: float


@dataclass(frozen=True)
class Cut:
    """A worker lost its connection to the broker."""

    worker: str
    at_s: float


GATHERED: dict[str, Any] = {
    "reads": Read, "flood_reads": Read, "stored": Stored, "cuts": Cut, "lives": Life,
    "depths_messages": None, "parked": None, "running": None,
}  # fmt: skip
ACCEPTED = 202
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HISTORY_FILE = "history.json"


@dataclass
class History:
    """The history of one run."""

    tries: list[Try] = field(default_factory=list)
    floods: list[Flood] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    crashes: list[Crashed] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    flood_reads: list[Read] = field(default_factory=list)
    """Reads of accepted tasks of attackers, some per batch."""
    stored: list[Stored] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    depths_messages: dict[str, int | None] = field(default_factory=dict)
    parked: list[str] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    """Ids of processes that tasks had started and that still run."""

    def accepted_ids(self) -> set[str]:
        """Return every id that was answered with 202, even if its client did not note it."""
        of_tries = {each.task_id for each in self.tries if each.status == ACCEPTED}
        return {task_id for task_id in of_tries | {post.task_id for post in self.posts} if task_id}


def collect(world: World, drain_s: float) -> History:
    """After the clients have ended: wait at most `drain_s` until no task is open, then read every record."""
    history = History()
    history.depths_messages = _drained(world, drain_s)
    for name in (LEDGER_FILE, EFFECTS_FILE, FAULTS_FILE):
        for record in read(world.folder / name):
            _add(history, record)
    history.reads = asyncio.run(_read_all(world, world.system.key, sorted(history.accepted_ids())))
    sample = sorted({task_id for flood in history.floods for task_id in flood.sample})
    history.flood_reads = asyncio.run(_read_all(world, world.greedy_key, sample))
    if topology.PARKED_QUEUE in history.depths_messages:
        try:
            history.parked = _parked(world)
        except subprocess.CalledProcessError as exc:  # a failure of our own tool is a finding too
            history.failed.append(Failed("dead-letters", str(exc.stderr)[-500:], time.time()))
    history.running = [pid for each in history.effects if (pid := each.started) and _is_running(pid)]
    for api in world.apis:
        world.scrape(api, whole=True)
    history.lives = world.lives
    for path in sorted(world.folder.glob("*.log")):
        _add_log(history, path)
    return history


def _is_running(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).cmdline() == STARTED
    return False


def save(history: History, path: Path) -> None:
    """Save the parts that are in no journal, so that the run can be checked again."""
    path.write_text(json.dumps({name: value for name, value in asdict(history).items() if name in GATHERED}))


def saved(folder: Path) -> History:
    """Load the history of a finished run from its folder."""
    history = History()
    for name in (LEDGER_FILE, EFFECTS_FILE, FAULTS_FILE):
        for record in read(folder / name):
            _add(history, record)
    kept = json.loads((folder / HISTORY_FILE).read_text())
    for name, kind in GATHERED.items():
        values = [kind(**value) for value in kept[name]] if kind else kept[name]
        setattr(history, name, values)
    return history


def _add(history: History, record: Record) -> None:
    lists: dict[type, list[Any]] = {
        Try: history.tries, Flood: history.floods, Post: history.posts, Seen: history.seen, Effect: history.effects,
        Injected: history.faults, Crashed: history.crashes, Failed: history.failed,
    }  # fmt: skip
    lists[type(record)].append(record)


def _drained(world: World, drain_s: float) -> dict[str, int | None]:
    """Wait until all queues except the parked one are empty, or the time is over; returns the messages of each queue.

    None: the queue has no figures, so that nobody knows whether it is empty.
    """
    end_s = time.monotonic() + drain_s
    empty = 0
    while True:
        queues = world.cluster.ask(f"/api/queues/{world.system.vhost}")
        depths = {str(queue["name"]): queue.get("messages") for queue in queues}
        left = any(messages != 0 for name, messages in depths.items() if name != topology.PARKED_QUEUE)
        empty = 0 if left else empty + 1
        # the figures are up to a second old: a queue is empty after three zeros
        if empty == 3 or time.monotonic() > end_s:
            return depths
        time.sleep(1)


async def _read_all(world: World, key: str, ids: list[str]) -> list[Read]:
    """Read each id over a few plain connections: an HTTP library would need minutes for so many."""
    chance = random.Random(1)  # noqa: S311
    wanted: dict[str, list[str]] = {api.url: [] for api in world.apis}
    for task_id in ids:
        for url in wanted if chance.random() < READ_TWICE else [chance.choice(list(wanted))]:
            wanted[url].append(task_id)
    some = [_read_some(url, key, mine[start::READERS]) for url, mine in wanted.items() for start in range(READERS)]
    return [read for reads in await asyncio.gather(*some) for read in reads]


async def _read_some(url: str, key: str, ids: list[str]) -> list[Read]:
    """Read ids over one connection. A failed read is repeated once over a new connection, and then "unread"."""
    address = urlsplit(url)
    connection: Connection | None = None
    reads = []
    for task_id in ids:
        found = Read(task_id, "unread")
        for _ in range(2):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    connection = connection or await asyncio.open_connection(address.hostname, address.port)
                    found = await _read(connection, address.netloc, key, task_id)
                break
            except (OSError, EOFError, ValueError, LookupError) as exc:  # no or an incomplete answer
                print(f"{task_id} could not be read from {address.netloc}: {exc!r}", flush=True)
                if connection:
                    connection[1].close()
                connection = None
        reads.append(found)
    if connection:
        connection[1].close()
    return reads


async def _read(connection: Connection, host: str, key: str, task_id: str) -> Read:
    reader, writer = connection
    writer.write(f"GET /tasks/{task_id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].split("\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    status = head.split()[1]
    return Read(task_id, body["task_status"], body["task_result"]) if status == "200" else Read(task_id, status)


def _parked(world: World) -> list[str]:
    """Return the ids of the parked messages as `make dead-letters` lists them."""
    env = world.system.environment("tool", CELERY_BROKER_URL=world.cluster.nodes[0].url(vhost=world.system.vhost))
    command = [sys.executable, "-m", "apps.worker.dead_letters", "list"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=60)
    return [str(json.loads(line)["id"]) for line in done.stdout.splitlines()]


def _add_log(history: History, path: Path) -> None:
    """Collect the final states that a process stored, and the losses of its connection, from its log."""
    worker = path.stem if path.stem.startswith("worker") else None
    for line in _lines(path):
        if line.get("stored") == "stored" and (task_id := line.get("task_id")):  # a message may belong to no task
            state = line.get("state", "FAILURE")  # the recorder stores no other state
            history.stored.append(Stored(str(task_id), str(state), _at_s(line)))
        elif worker and "onnection to broker lost" in line.get("message", ""):
            history.cuts.append(Cut(worker, _at_s(line)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(errors="replace") as file:
        for line in file:
            if '"stored"' in line or "onnection to broker lost" in line:
                try:
                    yield json.loads(line)
                except ValueError:  # incomplete line of a killed process
                    continue


def _at_s(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
