"""RabbitMQ and Redis for one test process: own ports, own folder, ended with it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from apps.contract import topology
from ops.command import Unusable
from ops.servers.programs import ensure
from ops.servers.rabbitmq import RabbitMQ
from ops.servers.redis import Redis
from tests.harness.fork_server import ForkServer

# On a busy machine RabbitMQ may take longer than a person's ten seconds for a virtual host's definitions.
MANAGEMENT_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Servers:
    """The two servers, which tests may stop and start, and leave running; and where a system's processes come from."""

    rabbitmq: RabbitMQ
    redis: Redis
    passwords: dict[str, str]
    """Of the broker's users, by name."""
    fork_server: ForkServer

    def restore(self) -> None:
        """Bring back what a test has stopped."""
        for server in (self.rabbitmq, self.redis):
            server.resume()
            if not server.node.alive:
                server.start()


def given_root() -> Path | None:
    """The root file system that the environment says RabbitMQ is to run from."""
    root = os.environ.get("SLUICE_TEST_RABBITMQ_ROOT")
    return Path(root) if root else None


@contextmanager
def running(folder: Path, root: Path | None = None) -> Iterator[Servers]:
    """Start both, and stop them at the end whatever happened; RabbitMQ from another root file system if need be."""
    programs = ensure()
    root = root or given_root()
    passwords = {user: secrets.token_urlsafe(24) for user in topology.USERS}
    rabbitmq = RabbitMQ(folder / "rabbitmq", programs, root=root)
    redis = Redis(folder / "redis", programs)
    rabbitmq.management = replace(rabbitmq.management, deadline_s=MANAGEMENT_DEADLINE_S)
    try:
        with ForkServer() as fork_server:
            rabbitmq.start()
            redis.start()
            yield Servers(rabbitmq, redis, passwords, fork_server)
    finally:
        redis.stop()
        rabbitmq.kill()  # an orderly stop takes RabbitMQ 3.10 six seconds, and its data is thrown away
        rabbitmq.stop()


class ImportingRabbitMQ(RabbitMQ):
    """A RabbitMQ whose configuration imports definitions from defs.json; it then makes no user of its own."""

    definitions = ""

    def _answers(self) -> bool:
        with suppress(Unusable):  # for a moment it listens, and has no user yet
            return super()._answers()
        return False

    def _write_configuration(self) -> None:
        super()._write_configuration()
        (self.folder / "defs.json").write_text(self.definitions)
