"""RabbitMQ and Redis for one test process: own ports, own folder, ended with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.programs import ensure
from local.servers import RabbitMQ, Redis


@dataclass(frozen=True)
class Servers:
    """The two servers; tests may stop and start them, and leave them running."""

    rabbitmq: RabbitMQ
    redis: Redis

    def restore(self) -> None:
        """Bring back what a test has stopped."""
        for server in (self.rabbitmq, self.redis):
            server.resume()
            if not server.node.alive:
                server.start()


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Start both, and stop them at the end whatever happened."""
    programs = ensure()
    root = os.environ.get("SLUICE_TEST_RABBITMQ_ROOT")
    servers = Servers(
        RabbitMQ(folder / "rabbitmq", programs, root=Path(root) if root else None),
        Redis(folder / "redis", programs),
    )
    try:
        servers.rabbitmq.start()
        servers.redis.start()
        yield servers
    finally:
        servers.redis.stop()
        servers.rabbitmq.kill()  # an orderly stop takes RabbitMQ 3.10 six seconds, and its data is thrown away
        servers.rabbitmq.stop()
