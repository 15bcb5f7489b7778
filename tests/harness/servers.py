"""RabbitMQ and Redis for one test process, with own ports and folder; they end with the process."""

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

# On a busy machine RabbitMQ may need longer than the default of ten seconds to import a virtual host's definitions.
MANAGEMENT_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Servers:
    """The two servers, which tests may stop and start, and the fork server that starts a system's processes."""

    rabbitmq: RabbitMQ
    redis: Redis
    passwords: dict[str, str]
    """Passwords of the broker's users, by user name."""
    fork_server: ForkServer

    def restore(self) -> None:
        """Start the servers that a test has stopped or suspended."""
        for server in (self.rabbitmq, self.redis):
            server.resume()
            if not server.node.alive:
                server.start()


def given_root() -> Path | None:
    """Return the root file system in which the environment says RabbitMQ is installed."""
    root = os.environ.get("SLUICE_TEST_RABBITMQ_ROOT")
    return Path(root) if root else None


@contextmanager
def running(folder: Path, root: Path | None = None) -> Iterator[Servers]:
    """Start both servers, and always stop them at the end; `root` is another root file system to run RabbitMQ from."""
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
        rabbitmq.kill()  # an orderly stop takes RabbitMQ 3.10 six seconds, and its data is not needed
        rabbitmq.stop()


class ImportingRabbitMQ(RabbitMQ):
    """A RabbitMQ whose configuration imports definitions from defs.json; it then creates no user by itself."""

    definitions = ""

    def _answers(self) -> bool:
        with suppress(Unusable):  # for a moment it listens before its user exists
            return super()._answers()
        return False

    def _write_configuration(self) -> None:
        super()._write_configuration()
        (self.folder / "defs.json").write_text(self.definitions)
