"""Runs RabbitMQ and Redis from compose.yaml with docker compose."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from apps.contract import redis_users
from ops.command import ROOT, answers
from ops.credentials import Credentials
from ops.definitions import ADMIN
from ops.management import Management
from ops.servers.child import Child
from ops.servers.ports import free_ports
from ops.servers.redis import is_redis

PULL_DEADLINE_S = 600.0  # the first start downloads two images


def engine_answers() -> bool:
    """Whether `docker compose` is installed, and its engine answers this user."""
    return answers("docker", "compose", "version") and answers("docker", "info")


class Compose:
    """Some services of compose.yaml, run by one attached child process: SIGTERM stops the containers."""

    def __init__(self, services: Sequence[str], credentials: Credentials, logs: Path) -> None:
        self.services = services
        self.broker_port, self.management_port, self.redis_port = free_ports(3)
        self.management = Management(
            f"http://127.0.0.1:{self.management_port}", ADMIN, credentials.broker_password_admin
        )
        self._redis_password = credentials.redis_password_default
        environment = {
            **os.environ,
            "BROKER_PASSWORD_ADMIN": credentials.broker_password_admin,
            "REDIS_USERS": "\n".join(redis_users.acl(credentials.redis_passwords)),
            "BROKER_PORT": str(self.broker_port),
            "MANAGEMENT_PORT": str(self.management_port),
            "REDIS_PORT": str(self.redis_port),
        }
        # By default Compose names a project after its folder: two clones would share containers.
        name = "sluice-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
        command = ["docker", "compose", "--project-name", name, "--file", str(ROOT / "compose.yaml")]
        up = [*command, "up", "--abort-on-container-exit", *services]
        self.node = Child("docker compose", up, log=logs / "compose.log", env=environment)

    def start(self) -> None:
        """Start the containers and wait until they answer. Raises Unusable if they do not."""
        self.node.start()
        self.node.ready(self._answers, PULL_DEADLINE_S)

    def stop(self) -> None:
        """Stop the containers; their data stays in volumes."""
        self.node.stop(deadline_s=60)

    def _answers(self) -> bool:
        redis = f"redis://:{self._redis_password}@127.0.0.1:{self.redis_port}/0"
        broker_answers = "rabbitmq" not in self.services or self.management.answers()
        return broker_answers and ("redis" not in self.services or is_redis(redis))
