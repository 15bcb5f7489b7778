"""Runs Redis as a child process on a free loopback port, with generated passwords, in one folder."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from apps.contract import redis_users
from ops.files import private_folder, write_private
from ops.servers.child import Child
from ops.servers.ports import free_ports
from ops.servers.programs import Programs

START_DEADLINE_S = 90.0


class Redis:
    """A Redis server with an append-only file, as in the chart."""

    def __init__(
        self, folder: Path, programs: Programs, *, passwords: Mapping[str, str] | None = None, logs: Path | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.passwords = passwords or {name: secrets.token_urlsafe(24) for name in redis_users.NAMES}
        (self.port,) = free_ports(1)
        configuration = self.folder / "redis.conf"
        log = (logs or self.folder) / "redis.log"
        self.node = Child("Redis", [programs.redis_server, configuration], log=log, env=dict(os.environ))

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the running server, for example (7, 0, 15)."""
        with _client(self.url()) as client:
            return tuple(int(part) for part in client.info("server")["redis_version"].split("."))

    def url(self, user: str = redis_users.ADMIN, database: int = 0) -> str:
        """The URL with a user and its password."""
        return f"redis://{user}:{quote(self.passwords[user], safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start the server, or restart it with the same data and port, and wait until it answers PING.

        Raises Unusable if it does not answer within `deadline_s` seconds; then the server is stopped.
        """
        self._write_configuration()
        self.node.start()
        try:
            self.node.ready(lambda: is_redis(self.url()), deadline_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, deadline_s: float = 10.0) -> None:
        """Stop the server, which flushes the append-only file."""
        self.node.stop(deadline_s)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.node.kill()

    def suspend(self) -> None:
        """Send SIGSTOP: connections stay open, but nothing is answered."""
        self.node.suspend()

    def resume(self) -> None:
        """Resume a suspended server."""
        self.node.resume()

    def _write_configuration(self) -> None:
        private_folder(self.folder)
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f'dir "{self.folder}"',
            *redis_users.acl(self.passwords),
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',  # no snapshots: the append-only file has all data
            "maxmemory-policy noeviction",  # evicting a record would lose a task
        )
        write_private(self.folder / "redis.conf", "\n".join(lines) + "\n")


def is_redis(url: str) -> bool:
    """Whether a Redis at this URL answers PING."""
    try:
        with _client(url) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):  # ValueError: not a Redis URL
        return False


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=5)
