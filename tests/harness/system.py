"""One system on its own virtual host: API, workers and recorder as processes, and clients for tests."""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self, TypedDict, TypeVar
from urllib.parse import quote

import httpx
import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from apps.contract.states import FINAL
from ops import definitions
from ops.images import uvicorn_options
from ops.management import Refused
from ops.servers.child import Child
from ops.servers.ports import free_ports
from tests.harness.fork_server import Forked
from tests.harness.process_marks import end_marked, marked_command
from tests.harness.servers import Servers
from tests.harness.tasks import EFFECTS, release_file

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


class Patient(TypedDict):
    """Settings of an API that waits for a suspended broker for as long as a test needs.

    Neither the deadline of a publish nor a missed heartbeat ends the wait.
    """

    PUBLISH_DEADLINE_S: str
    BROKER_HEARTBEAT_S: str


PATIENT = Patient(PUBLISH_DEADLINE_S="30", BROKER_HEARTBEAT_S="60")


def until(read: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "a condition") -> T:
    """Poll until `read` returns a true value, and return that. AssertionError after the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := read()):
        assert time.monotonic() < end, f"{what} not met within {deadline_s} s"
        time.sleep(0.05)
    return value


class System:
    """The processes of one test, in their own folder; a context manager that ends them all."""

    def __init__(self, servers: Servers, folder: Path, **limits: float) -> None:
        self.servers = servers
        self.folder = folder
        token = secrets.token_hex(4)
        self.vhost = f"test-{token}"
        self._mark = 2**40 + int(token, 16)
        # Users belong to the broker, not to a virtual host: all systems of this run share their passwords.
        self.passwords = servers.passwords
        self.limits = limits
        self.key = secrets.token_urlsafe(24)
        self.task_id_key = secrets.token_urlsafe(24)
        self.effects_file = folder / "effects"
        self.redis: redis.Redis = redis.Redis.from_url(
            servers.redis.url(), decode_responses=True, retry=Retry(NoBackoff(), 0)
        )
        self._broker_pid = servers.rabbitmq.node.pid
        self._ends = ExitStack()
        self._count = 0

    def __enter__(self) -> Self:
        self.define(**self.limits)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        end_marked(self._mark)  # includes processes that tasks started in their own sessions
        self.servers.restore()
        self.redis.close()
        # RabbitMQ 3.10 permanently loses its dead-letter workers if a queue is deleted while it elects its leader.
        # After a restart of the broker, the virtual host is therefore kept until the end of the run.
        if self.servers.rabbitmq.node.pid == self._broker_pid:
            self.servers.rabbitmq.management(f"/api/vhosts/{self.vhost}", "DELETE")

    def define(self, **limits: float) -> None:
        """Apply the broker's definitions to this system's virtual host."""
        broker = self.servers.rabbitmq
        try:
            definitions.apply(broker.management, self.passwords, self.vhost, **limits)
        except Refused as exc:  # the broker's answer does not contain the reason
            exc.add_note(f"its log ends:\n{broker.node.last_lines(60)}")
            raise

    def environment(self, user: str, **extra: str) -> dict[str, str]:
        """Return the environment of a process that connects as this user."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONWARNINGS") if name in os.environ}
        return kept | {
            "CELERY_BROKER_URL": self.servers.rabbitmq.url(user, self.passwords[user], self.vhost),
            "CELERY_RESULT_BACKEND": self.servers.redis.url(user),
            "TASK_ID_KEY": self.task_id_key,
            "API_KEYS": f"tests:{self.key}",
            # unlimited; the tests of quotas set their own
            "QUOTA_TASKS_PER_S": "1000000",
            "QUOTA_OPEN_TASKS": "1000000000",
            "SOFT_SHUTDOWN_S": "5",
            "BROKER_HEARTBEAT_S": "3",
            # short, as tests wait for the end of a worker that returns unknown messages for this long
            "RETURN_MAX_S": "2",
            # longer than the default: on a busy machine a confirm may take longer; below two heartbeats
            "PUBLISH_DEADLINE_S": "5",
            EFFECTS: str(self.effects_file),
            **extra,
        }

    def api(self, module: str = "tests.harness.api", *, ready: bool = True, cwd: Path = ROOT, **extra: str) -> "Api":
        """Start an API process, and wait until it answers and is connected to the broker and Redis."""
        (port,) = free_ports(1)
        command = ["uvicorn", "--factory", f"{module}:create_app", "--host", "127.0.0.1"]
        command += ["--port", str(port), *uvicorn_options()]
        child = self._start("api", command, self.environment("api", **extra), cwd)
        api = Api(child, port, self.key)
        self._ends.callback(api.client.close)
        if ready:
            until(
                lambda: (api.get("/livez") == 200 and api.get("/healthz") == 200) or not child.alive,
                what=f"the API ready, {child.log}",
            )
            assert child.alive, child.last_lines()
        return api

    def worker(
        self, module: str = "tests.harness.worker", *, ready: bool = True, cwd: Path = ROOT, **extra: str
    ) -> Child:
        """Start a worker, and wait until it consumes."""
        # a unique name, as in a pod: Celery warns about two workers with the same name
        command = ["celery", "--quiet", "-A", module, "worker", "-n", f"worker-{self._count}@%h"]
        child = self._with_files("worker", command, self.environment("worker", **extra), cwd)
        if ready:
            self.wait_ready(child)
        return child

    def recorder(self, module: str = "apps.worker.recorder", *, ready: bool = True, **extra: str) -> Child:
        """Start a recorder, and wait until it consumes."""
        child = self._with_files("recorder", [module], self.environment("recorder", **extra))
        if ready:
            self.wait_ready(child)
        return child

    def run(self, module: str, *arguments: str, user: str) -> CompletedProcess[str]:
        """Run a command of the project, and wait for its end."""
        output, errors = (self.folder / f"{module}-{self._count}.{kind}" for kind in ("output", "errors"))
        self._count += 1
        command, env = [module, *arguments], self.environment(user)
        child = Forked(self.servers.fork_server, module, command, log=errors, env=env, mark=self._mark, output=output)
        self._ends.callback(child.kill)
        child.start()
        until(lambda: not child.alive, what=f"the end of {module}")
        return CompletedProcess(command, child.wait(), output.read_text(), errors.read_text())

    def wait_ready(self, child: Child, deadline_s: float = DEADLINE_S) -> None:
        """Wait until a worker or recorder has written its readiness file."""
        ready = Path(child.env["READINESS_FILE"])
        until(lambda: ready.exists() or not child.alive, deadline_s, f"{child.name} ready, {child.log}")
        assert child.alive, child.last_lines()

    def effects(self, name: str, what: str) -> int:
        """Return how often a task of this name noted this step."""
        if not self.effects_file.exists():
            return 0
        return self.effects_file.read_text().splitlines().count(f"{name} {what}")

    def release(self, name: str) -> None:
        """Let the held task of this name finish."""
        release_file(self.effects_file, name).touch()

    def redis_connections(self, api: "Api") -> int:
        """Return the number of connections to Redis of an API process."""
        port = self.servers.redis.port
        connections = psutil.Process(api.child.pid).net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in connections)

    def broker_connections(self, user: str) -> list[str]:
        """Return the names of a user's connections; the management API lags by some seconds."""
        listed = self.servers.rabbitmq.management(f"/api/vhosts/{self.vhost}/connections")
        return [str(one["name"]) for one in listed if one.get("user") == user]

    def close_broker_connections(self, user: str) -> None:
        """Let the broker close a user's connections."""
        for name in self.broker_connections(user):
            self.servers.rabbitmq.management(f"/api/connections/{quote(name)}", "DELETE")

    def depth_messages(self, queue: str) -> int:
        """Return the current number of messages of a queue, ready and unacked."""
        place = f"{self.vhost}/{queue}"
        listed = self.servers.rabbitmq.management(f"/api/queues/{place}")
        return int(listed.get("messages", 0))

    def unacked_messages(self, queue: str) -> int:
        """Return the number of unacked messages of a queue; the management API lags by some seconds."""
        listed = self.servers.rabbitmq.management(f"/api/queues/{self.vhost}/{queue}")
        return int(listed.get("messages_unacknowledged", 0))

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """Yield every JSON line that the system's processes logged."""
        for path in sorted(self.folder.glob("*.log")):
            for line in path.read_text().splitlines(keepends=True):
                if line.startswith("{") and line.endswith("}\n"):  # the last line may be incomplete
                    yield json.loads(line)

    def requests(self, path: str, count: int = 1, **members: object) -> list[dict[str, Any]]:
        """Wait for `count` log lines of requests to this path that contain `members`, and return them.

        The API writes the line of a request up to 20 ms after the client has received its answer.
        """

        def logged() -> list[dict[str, Any]]:
            wanted = {"message": "request", "path": path, **members}
            return [line for line in self.log_lines() if line | wanted == line]

        until(lambda: len(logged()) >= count, what=f"{count} requests to {path} in the log")
        return logged()

    def logs(self) -> str:
        """Return the whole log output of the system's processes."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _with_files(self, name: str, command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> Child:
        stem = self.folder / f"{name}-{self._count}"
        files = {"LIVENESS_FILE": f"{stem}.live", "READINESS_FILE": f"{stem}.ready"}
        return self._start(name, command, files | environment, cwd)

    def _start(self, name: str, command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> Child:
        log = self.folder / f"{name}-{self._count}.log"
        self._count += 1
        # The fork server can run only the code that it has imported, and cannot preload a library.
        if cwd == ROOT and "LD_PRELOAD" not in environment:
            child: Child = Forked(self.servers.fork_server, name, command, log=log, env=environment, mark=self._mark)
        else:
            command = marked_command(self._mark, [sys.executable, "-m", *command])
            child = Child(name, command, log=log, env=environment, cwd=cwd)
        self._ends.callback(child.kill)  # fast; tests of an orderly end stop it themselves
        child.start()
        return child


class Api:
    """One API process and an HTTP client for it."""

    def __init__(self, child: Child, port: int, key: str) -> None:
        self.child = child
        self._key = key
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=40, trust_env=False
        )

    def get(self, path: str) -> int:
        """Return the status of a GET, or 0 without an answer."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def post(self, task: str, name: str = "abc", *, key: str | None = None, **more: object) -> httpx.Response:
        """Post a task, optionally with an Idempotency-Key."""
        return self.client.post("/tasks", json={"task": task, "name": name, **more}, headers=self._keyed(key))

    def batch(self, inputs: list[dict[str, Any]], key: str | None = None) -> httpx.Response:
        """Post a batch."""
        return self.client.post("/tasks/batch", json={"tasks": inputs}, headers=self._keyed(key))

    def accepted(self, task: str, name: str = "abc", **more: Any) -> str:
        """Post a task, assert that it is accepted, and return its id."""
        response = self.post(task, name, **more)
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    def status(self, task_id: str, wait_s: float = 0) -> dict[str, Any]:
        """Return the API's answer for a task."""
        response = self.client.get(f"/tasks/{task_id}", params={"wait": wait_s} if wait_s else {})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def ended(self, task_id: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait for the end of a task, and return the API's answer."""
        end = time.monotonic() + deadline_s
        while True:
            status = self.status(task_id, wait_s=min(10, max(0.1, end - time.monotonic())))
            if status["task_status"] in FINAL:
                return status
            assert time.monotonic() < end, f"{task_id} is still {status['task_status']}"

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = self.client.get("/metrics").text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def _keyed(self, key: str | None) -> dict[str, str]:
        # Systems share a Redis: a prefix makes the key unique to this system.
        return {} if key is None else {"Idempotency-Key": f"{self._key[:8]}-{key}"}
