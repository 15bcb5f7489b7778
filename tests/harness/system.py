"""One system on a virtual host of its own: API, workers and recorder as processes, and a client to drive them."""

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

from ops import definitions
from ops.management import Refused
from ops.servers.child import Child
from ops.servers.ports import free_ports
from ops.servers.processes import UVICORN_OPTIONS
from tests.harness.fork_server import Forked
from tests.harness.process_marks import end_marked, marked_command
from tests.harness.servers import Servers
from tests.harness.tasks import EFFECTS, release_file

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


class Patient(TypedDict):
    """Settings of an API that waits for a suspended broker until the test resumes it, however long that takes.

    Neither the deadline of a publish nor a missed heartbeat ends the wait.
    """

    PUBLISH_DEADLINE_S: str
    BROKER_HEARTBEAT_S: str


PATIENT = Patient(PUBLISH_DEADLINE_S="30", BROKER_HEARTBEAT_S="60")


def until(read: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "a condition") -> T:
    """Poll until `read` answers something true, and answer that. AssertionError after the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := read()):
        assert time.monotonic() < end, f"{what} not met within {deadline_s} s"
        time.sleep(0.05)
    return value


class System:
    """The processes of one test, in a folder of their own; `with` ends them all."""

    def __init__(self, servers: Servers, folder: Path, **limits: float) -> None:
        self.servers = servers
        self.folder = folder
        token = secrets.token_hex(4)
        self.vhost = f"test-{token}"
        self._mark = 2**40 + int(token, 16)
        # users are the broker's, not the virtual host's: every system of this run gives them the same passwords
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
        end_marked(self._mark)  # also what tasks have started in sessions of their own
        self.servers.restore()
        self.redis.close()
        # RabbitMQ 3.10 loses its dead-letter workers for good when a queue is deleted while it still elects its leader:
        # after a restart the virtual host is left to the end of the run.
        if self.servers.rabbitmq.node.pid == self._broker_pid:
            self.servers.rabbitmq.management(f"/api/vhosts/{self.vhost}", "DELETE")

    def define(self, **limits: float) -> None:
        """Apply the broker's definitions to this system's virtual host."""
        broker = self.servers.rabbitmq
        try:
            definitions.apply(broker.management, self.passwords, self.vhost, **limits)
        except Refused as exc:  # the broker's own page says only that it failed
            exc.add_note(f"its log ends:\n{broker.node.last_lines(60)}")
            raise

    def environment(self, user: str, **extra: str) -> dict[str, str]:
        """What a process of the system finds in its environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONWARNINGS") if name in os.environ}
        return kept | {
            "CELERY_BROKER_URL": self.servers.rabbitmq.url(user, self.passwords[user], self.vhost),
            "CELERY_RESULT_BACKEND": self.servers.redis.url(user),
            "TASK_ID_KEY": self.task_id_key,
            "API_KEYS": f"tests:{self.key}",
            # only the tests of quotas reach them
            "QUOTA_TASKS_PER_S": "1000000",
            "QUOTA_OPEN_TASKS": "1000000000",
            "SOFT_SHUTDOWN_S": "5",
            "BROKER_HEARTBEAT_S": "3",
            # how long a worker returns what it does not understand, where a test waits for the end of that
            "RETURN_MAX_S": "2",
            # above the default: on a busy machine a confirm may take longer; below two heartbeats
            "PUBLISH_DEADLINE_S": "5",
            EFFECTS: str(self.effects_file),
            **extra,
        }

    def api(self, module: str = "tests.harness.api", *, ready: bool = True, cwd: Path = ROOT, **extra: str) -> "Api":
        """Start an API process and wait until it answers, and has the broker and Redis."""
        (port,) = free_ports(1)
        command = ["uvicorn", "--factory", f"{module}:create_app", "--host", "127.0.0.1"]
        command += ["--port", str(port), *UVICORN_OPTIONS]
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
        """Start a worker; wait until it consumes."""
        # a name of its own, as a pod has: Celery takes a second worker of the same name for a mistake
        command = ["celery", "--quiet", "-A", module, "worker", "-n", f"worker-{self._count}@%h"]
        child = self._with_files("worker", command, self.environment("worker", **extra), cwd)
        if ready:
            self.wait_ready(child)
        return child

    def recorder(self, module: str = "apps.worker.recorder", *, ready: bool = True, **extra: str) -> Child:
        """Start a recorder; wait until it consumes."""
        child = self._with_files("recorder", [module], self.environment("recorder", **extra))
        if ready:
            self.wait_ready(child)
        return child

    def run(self, module: str, *arguments: str, user: str) -> CompletedProcess[str]:
        """Run a command of the project to its end."""
        output, errors = (self.folder / f"{module}-{self._count}.{kind}" for kind in ("output", "errors"))
        self._count += 1
        command, env = [module, *arguments], self.environment(user)
        child = Forked(self.servers.fork_server, module, command, log=errors, env=env, mark=self._mark, output=output)
        self._ends.callback(child.kill)
        child.start()
        until(lambda: not child.alive, what=f"the end of {module}")
        return CompletedProcess(command, child.wait(), output.read_text(), errors.read_text())

    def wait_ready(self, child: Child, deadline_s: float = DEADLINE_S) -> None:
        """Wait for the readiness file of a worker or recorder."""
        ready = Path(child.env["READINESS_FILE"])
        until(lambda: ready.exists() or not child.alive, deadline_s, f"{child.name} ready, {child.log}")
        assert child.alive, child.last_lines()

    def effects(self, name: str, what: str) -> int:
        """How often a task of this name noted this step."""
        if not self.effects_file.exists():
            return 0
        return self.effects_file.read_text().splitlines().count(f"{name} {what}")

    def release(self, name: str) -> None:
        """Let the held task of this name end."""
        release_file(self.effects_file, name).touch()

    def redis_connections(self, api: "Api") -> int:
        """How many connections to Redis an API process has."""
        port = self.servers.redis.port
        connections = psutil.Process(api.child.pid).net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in connections)

    def broker_connections(self, user: str) -> list[str]:
        """Names of a user's connections, as the management API has them, some seconds late."""
        listed = self.servers.rabbitmq.management(f"/api/vhosts/{self.vhost}/connections")
        return [str(one["name"]) for one in listed if one.get("user") == user]

    def close_broker_connections(self, user: str) -> None:
        """Have the broker close them."""
        for name in self.broker_connections(user):
            self.servers.rabbitmq.management(f"/api/connections/{quote(name)}", "DELETE")

    def depth_messages(self, queue: str) -> int:
        """Messages of a queue, ready and unacked, as the broker has them now."""
        place = f"{self.vhost}/{queue}"
        listed = self.servers.rabbitmq.management(f"/api/queues/{place}")
        return int(listed.get("messages", 0))

    def unacked_messages(self, queue: str) -> int:
        """Messages of a queue that a consumer has, as the management API has them, some seconds late."""
        listed = self.servers.rabbitmq.management(f"/api/queues/{self.vhost}/{queue}")
        return int(listed.get("messages_unacknowledged", 0))

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """Every JSON line that the system's processes logged."""
        for path in sorted(self.folder.glob("*.log")):
            for line in path.read_text().splitlines(keepends=True):
                if line.startswith("{") and line.endswith("}\n"):  # the last line may be incomplete
                    yield json.loads(line)

    def requests(self, path: str, count: int = 1, **members: object) -> list[dict[str, Any]]:
        """The log's lines of requests to a path that have these members, once there are `count`.

        The API writes a request's line up to 20 ms after the client has its answer.
        """

        def logged() -> list[dict[str, Any]]:
            wanted = {"message": "request", "path": path, **members}
            return [line for line in self.log_lines() if line | wanted == line]

        until(lambda: len(logged()) >= count, what=f"{count} requests to {path} in the log")
        return logged()

    def logs(self) -> str:
        """Everything that the system's processes printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _with_files(self, name: str, command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> Child:
        stem = self.folder / f"{name}-{self._count}"
        files = {"LIVENESS_FILE": f"{stem}.live", "READINESS_FILE": f"{stem}.ready"}
        return self._start(name, command, files | environment, cwd)

    def _start(self, name: str, command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> Child:
        log = self.folder / f"{name}-{self._count}.log"
        self._count += 1
        # what the fork server cannot give: other code than it has imported, or a library that is loaded at the exec
        if cwd == ROOT and "LD_PRELOAD" not in environment:
            child: Child = Forked(self.servers.fork_server, name, command, log=log, env=environment, mark=self._mark)
        else:
            command = marked_command(self._mark, [sys.executable, "-m", *command])
            child = Child(name, command, log=log, env=environment, cwd=cwd)
        self._ends.callback(child.kill)  # how it ends in an orderly way is tested where it matters
        child.start()
        return child


class Api:
    """One API process and a client of it."""

    def __init__(self, child: Child, port: int, key: str) -> None:
        self.child = child
        self._key = key
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=40, trust_env=False
        )

    def get(self, path: str) -> int:
        """The status of a GET, 0 where nobody answers."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def post(self, task: str, name: str = "abc", *, key: str | None = None, **more: object) -> httpx.Response:
        """Post a task, under an Idempotency-Key if there is one."""
        return self.client.post("/tasks", json={"task": task, "name": name, **more}, headers=self._keyed(key))

    def batch(self, inputs: list[dict[str, Any]], key: str | None = None) -> httpx.Response:
        """Post a batch."""
        return self.client.post("/tasks/batch", json={"tasks": inputs}, headers=self._keyed(key))

    def accepted(self, task: str, name: str = "abc", **more: Any) -> str:
        """Post a task that must be accepted; answers its id."""
        response = self.post(task, name, **more)
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    def status(self, task_id: str, wait_s: float = 0) -> dict[str, Any]:
        """What the API says of a task."""
        response = self.client.get(f"/tasks/{task_id}", params={"wait": wait_s} if wait_s else {})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def ended(self, task_id: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """What the API says of a task once it has ended."""
        end = time.monotonic() + deadline_s
        while True:
            status = self.status(task_id, wait_s=min(10, max(0.1, end - time.monotonic())))
            if status["task_status"] in {"SUCCESS", "FAILURE", "REVOKED"}:
                return status
            assert time.monotonic() < end, f"{task_id} is still {status['task_status']}"

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = self.client.get("/metrics").text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def _keyed(self, key: str | None) -> dict[str, str]:
        # systems share a Redis: the same word is another key in each
        return {} if key is None else {"Idempotency-Key": f"{self._key[:8]}-{key}"}
