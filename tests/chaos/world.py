"""The system under test with its servers and proxies; the faults act on it."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from apps.contract import topology
from apps.contract.settings import ApiSettings
from ops.command import Unusable
from ops.servers import newer
from ops.servers.child import Child
from ops.servers.programs import ensure
from ops.servers.redis import Redis
from tests.chaos.cluster import Cluster
from tests.chaos.proxy import Proxy
from tests.chaos.weakened import WITHOUT, weaken_definitions
from tests.harness.fork_server import Forked, ForkServer
from tests.harness.servers import Servers
from tests.harness.system import Api, System

# The API's default: a paused broker must leave posts whose outcome is unknown.
PUBLISH_DEADLINE_S = str(ApiSettings.model_fields["publish_deadline_s"].default)
# Longer than the fault old-worker, which may receive a message again after each return.
RETURN_MAX_S = "60"
APIS, WORKERS = 2, 3
COUNTERS = ("accepted", "repeated", "refused")


@dataclass(frozen=True)
class Setup:
    """Servers and load of a run. `newer`: RabbitMQ 4.3 or later instead of this machine's version.

    `work_s` is the approximate duration of a task; 0 is a mix, mostly of some milliseconds. `processes` is the number
    of processes of each worker, `poison` the share of tasks that kill their worker's process, `followed` the share of
    posts that a client follows to their end.
    """

    nodes: int = 1
    newer: bool = False
    per_s: float = 16.0
    work_s: float = 0.0
    processes: int = 3
    poison: float = 0.0
    delivery_limit: int = topology.DELIVERY_LIMIT
    heartbeat_s: int = 10
    followed: float = 0.05


EFFECTS_FILE, LEDGER_FILE, FAULTS_FILE = "effects.jsonl", "ledger.jsonl", "faults.jsonl"


@dataclass(frozen=True)
class Life:
    """An API process and its counters when they were last read; `whole`: it answered no post after that."""

    port: int
    started_s: float
    read_s: float
    accepted: int
    repeated: int
    refused: int
    whole: bool


class World:
    """The running system; made by `running`."""

    def __init__(self, setup: Setup, without: str, cluster: Cluster, redis: Redis, system: System) -> None:
        self.setup = setup
        self.without = without
        self.cluster = cluster
        self.redis = redis
        self.system = system
        self.folder = folder = system.folder
        self.clock = folder / "clock"
        self.step_clock(0)
        self.older = folder / "older"  # files of an older commit (tests/chaos/versions.py)
        self.greedy_key = secrets.token_urlsafe(24)
        self.lives: list[Life] = []
        self.api_proxy = Proxy(cluster.addresses)
        self.worker_proxy = Proxy(cluster.addresses)
        self.apis: list[Api] = []
        self.workers: list[Child] = []
        self.recorder: Child
        self.clients: Child
        self._started_s: dict[int, float] = {}

    def start(self) -> None:
        """Start APIs, workers and recorder, which reach the broker through the proxies."""
        heartbeat = {"BROKER_HEARTBEAT_S": str(self.setup.heartbeat_s)}
        weakened = {WITHOUT: self.without, **heartbeat}
        broker = self._broker("api", self.api_proxy)
        faked = {
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        keys = {
            "API_KEYS": f"tests:{self.system.key},greedy:{self.greedy_key}",
            # four times the clients' rate, and far below an attacker's
            "QUOTA_TASKS_PER_S": str(round(4 * self.setup.per_s)),
            "QUOTA_OPEN_TASKS": "5000",
        }
        for number in range(APIS):
            own = faked if number else {}
            options = {"CELERY_BROKER_URL": broker, "PUBLISH_DEADLINE_S": PUBLISH_DEADLINE_S, **keys, **own, **weakened}
            api = self.system.api("tests.chaos.api", **options)  # type: ignore[arg-type]  # none of them is `cwd`
            self.apis.append(api)
            self._started_s[api.child.pid] = 0.0
        broker = self._broker("worker", self.worker_proxy)
        for _ in range(WORKERS):
            options = {"CELERY_BROKER_URL": broker, "WORKER_CONCURRENCY": str(self.setup.processes)}
            options |= {"RETURN_MAX_S": RETURN_MAX_S, **weakened}
            worker = self.system.worker("tests.chaos.worker", **options)  # type: ignore[arg-type]  # nor `ready`
            self.workers.append(worker)
        options = {"CELERY_BROKER_URL": self._broker("recorder", self.worker_proxy), **heartbeat}
        self.recorder = self.system.recorder(**options)  # type: ignore[arg-type]  # nor `ready`
        if self.without == "recorder":
            self.recorder.kill()

    def start_clients(self, seed: int) -> None:
        """Start the process of the clients."""
        setup = self.setup
        urls = ",".join(api.url for api in self.apis)
        env = self.system.environment(
            "api", CHAOS_APIS=urls, CHAOS_KEY=self.system.key, CHAOS_SEED=str(seed), CHAOS_PER_S=str(setup.per_s),
            CHAOS_WORK_S=str(setup.work_s), CHAOS_POISON=str(setup.poison), CHAOS_FOLLOWED=str(setup.followed),
            CHAOS_LEDGER=str(self.folder / LEDGER_FILE),
        )  # fmt: skip
        log = self.folder / "clients.log"
        self.clients = Forked(self.system.servers.fork_server, "clients", ["tests.chaos.clients"], log=log, env=env)
        self.clients.start()

    @property
    def ours(self) -> list[Child]:
        """The processes under test that should be running."""
        recorder = [] if self.without == "recorder" else [self.recorder]
        return [*(api.child for api in self.apis), *self.workers, *recorder]

    def name(self, child: Child) -> str:
        """The process's name: the name of its log file and of the Celery worker."""
        return child.log.stem

    def restart(self, child: Child) -> None:
        """Start a process that has ended; an API's counters begin at zero."""
        child.kill()  # reaps it
        if "READINESS_FILE" in child.env:  # a killed process leaves the file behind
            Path(child.env["READINESS_FILE"]).unlink(missing_ok=True)
        started_s = time.time()
        child.start()
        self._started_s[child.pid] = started_s

    def replace_api(self, api: Api, child: Child) -> None:
        """Stop the present child of an API and start another child on the same port."""
        api.child.kill()
        api.child = child
        self.restart(child)

    def step_clock(self, offset_s: int) -> None:
        """Set the second API's clock this many seconds off; libfaketime reads the file at each call."""
        new = self.clock.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self.clock)

    def limit_queues(self, **limits: int) -> None:
        """Set the policy of the work queues, with these limits changed."""
        limits = {"delivery_limit": self.setup.delivery_limit, **limits}
        version = tuple(map(int, self.cluster.ask("/api/overview")["rabbitmq_version"].split(".")[:2]))
        policy = topology.policies((version[0], version[1]), **limits)[0]
        self.cluster.ask(f"/api/policies/{self.system.vhost}/{policy['name']}", "PUT", policy)

    def scrape(self, api: Api, *, whole: bool = False) -> None:
        """Store an API's counters before the process is stopped, or at the end of the run."""
        text = ""
        with suppress(httpx.TransportError):  # the API does not answer, so it has no counters to compare
            text = api.client.get("/metrics").text
        if text:
            accepted, repeated, refused = (_sum(text, f"sluice_{name}_total") for name in COUNTERS)
            port = int(api.url.rpartition(":")[2])
            started_s = self._started_s[api.child.pid]
            self.lives.append(Life(port, started_s, time.time(), accepted, repeated, refused, whole))

    def _broker(self, user: str, proxy: Proxy) -> str:
        password = quote(self.system.passwords[user], safe="")
        return ";".join(f"amqp://{user}:{password}@127.0.0.1:{port}/{self.system.vhost}" for port in proxy.ports)


@contextmanager
def running(folder: Path, setup: Setup, without: str) -> Iterator[World]:
    """Start everything except the clients; stop it at the end."""
    programs = ensure()
    with ExitStack() as ends:
        fork_server = ends.enter_context(ForkServer())
        cluster = Cluster(setup.nodes, folder / "rabbitmq", programs, newer.ensure() if setup.newer else None)
        ends.callback(cluster.stop)
        cluster.start()
        redis = Redis(folder / "redis", programs)
        ends.callback(redis.stop)
        redis.start()
        weaken_definitions(without)
        passwords = {user: secrets.token_urlsafe(24) for user in topology.USERS}
        servers = Servers(cluster.nodes[0], redis, passwords, fork_server)
        system = ends.enter_context(System(servers, folder, delivery_limit=setup.delivery_limit))
        system.effects_file = folder / EFFECTS_FILE
        world = World(setup, without, cluster, redis, system)
        for proxy in (world.api_proxy, world.worker_proxy):
            ends.enter_context(proxy)
        if without == "aof":
            system.redis.config_set("appendonly", "no")
        world.start()
        yield world


def faketime() -> Path:
    """Path of the library that shifts a process's clock. Unusable if it is missing."""
    found = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
    if found is None:
        raise Unusable("libfaketime is missing: install it (Debian's package libfaketime) and run this again.")
    return found


def _sum(text: str, name: str) -> int:
    return int(sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE))))
