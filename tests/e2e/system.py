"""The running system as clients see it through NGINX, and the ledger in Redis that the tests' tasks write."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import redis

from apps.client import Client, Problem
from apps.contract import keys
from apps.contract.example import example_input
from apps.tasks import TASKS
from ops import cluster
from ops.forward import forwarded
from ops.management import Management
from ops.servers.child import until
from tests.e2e import objects

# the keys of tests/e2e/overlays/ledger/work.py
LEDGER, BEGUN, ENDED = "sluice:task:e2e-ledger", "sluice:task:e2e-begun", "sluice:task:e2e-ended"
READERS = 8
POST_TIMEOUT_S = 60


# a task of the project: the local overlay has no other tasks
SPEC = next(iter(TASKS.values()))


def example() -> dict[str, Any]:
    """Return an example input of SPEC."""
    made = example_input(SPEC.input)
    assert made is not None, f"the fields of {SPEC.input.__name__} need examples=[...]"
    return made


@dataclass(frozen=True)
class System:
    """One system: its URL, an API key, and the Redis with the ledger."""

    entrance: str
    key: str = field(repr=False)
    store: "redis.Redis" = field(repr=False)

    @cached_property
    def host(self) -> str:
        """The Host header of every request: the entrance may be an IP address. Read after an overlay is applied."""
        return cluster.ingress_host()

    def client(self) -> Client:
        return Client(self.entrance, self.key, host=self.host)

    def post(self, names: Sequence[str], task: str = "counted_short") -> list[str]:
        """Post tasks in one request, which must all be accepted; returns their ids."""
        with self.client() as client:
            outcomes = client.submit_batch([{"task": task, "name": name} for name in names], deadline_s=POST_TIMEOUT_S)
        refused = [each for each in outcomes if isinstance(each, Problem)]
        assert not refused, f"{len(refused)} of {len(outcomes)} refused, the first with {refused[0]}"
        return [str(each) for each in outcomes]

    def finished(self) -> int:
        """Return the number of tasks that have ended."""
        return int(self.store.hlen(LEDGER))

    def effects(self) -> dict[str, int]:
        """Return how often each task had its effect: name -> count."""
        return self._counts(LEDGER)

    def begun(self) -> dict[str, int]:
        """Return how often each task began: more than once if its worker was killed."""
        return self._counts(BEGUN)

    def last_end_s(self) -> float:
        """Return when the last task ended, in seconds since the epoch."""
        return max(float(each) for each in self.store.hvals(ENDED))

    def forget(self) -> None:
        """Empty the ledger."""
        self.store.delete(LEDGER, BEGUN, ENDED)

    def _counts(self, ledger: str) -> dict[str, int]:
        return {str(name): int(count) for name, count in self.store.hgetall(ledger).items()}

    def states(self, ids: Sequence[str], timeout_s: float) -> set[str]:
        """Wait for tasks through the API; returns their final states."""
        end = time.monotonic() + timeout_s
        with self.client() as client, ThreadPoolExecutor(READERS) as readers:
            return set(readers.map(lambda each: client.result(each, max(1.0, end - time.monotonic())).status, ids))

    def drained(self, count: int, timeout_s: float) -> None:
        """Wait until `count` tasks have ended."""
        until(lambda: self.finished() >= count, timeout_s, f"the end of {count} tasks")


@contextmanager
def broker() -> Iterator[Management]:
    """Connect to RabbitMQ's management API in the cluster that KUBECONFIG names."""
    password = objects.secret("data", "rabbitmq-auth")["password"]
    with forwarded("data", "service/rabbitmq", 15672) as port:
        yield Management(f"http://127.0.0.1:{port}", "admin", password)


@contextmanager
def entered(entrance: str) -> Iterator[System]:
    """Connect to the system in the cluster that KUBECONFIG names."""
    key = keys.first_key(objects.secret("fastapi", "api")["API_KEYS"])
    password = objects.secret("data", "redis-auth")["password"]
    with forwarded("data", "service/redis", 6379) as port:
        # port forwarding is slow while the cluster is busy
        store = redis.Redis(port=port, username="admin", password=password, socket_timeout=30, decode_responses=True)
        with store:
            yield System(entrance, key, store)
