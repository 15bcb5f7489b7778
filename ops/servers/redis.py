"""Redis as a child of ours: a free loopback port, generated passwords, one folder."""

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
    """One Redis with an append-only file, as the chart runs it."""

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
        """Of the running server, as (7, 0, 15)."""
        with _client(self.url()) as client:
            return tuple(int(part) for part in client.info("server")["redis_version"].split("."))

    def url(self, user: str = redis_users.ADMIN, database: int = 0) -> str:
        """Address with a user and its password."""
        return f"redis://{user}:{quote(self.passwords[user], safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start, or start again on the same data and port, and wait for a PONG. Unusable if none comes."""
        self._write_configuration()
        self.node.start()
        try:
            self.node.ready(lambda: is_redis(self.url()), deadline_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, deadline_s: float = 10.0) -> None:
        """An orderly end: the append-only file is flushed."""
        self.node.stop(deadline_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.node.kill()

    def suspend(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self.node.suspend()

    def resume(self) -> None:
        """Let a suspended server go on."""
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
            'save ""',  # the append-only file has it all
            "maxmemory-policy noeviction",  # a record that was evicted would be a lost task
        )
        write_private(self.folder / "redis.conf", "\n".join(lines) + "\n")


def is_redis(url: str) -> bool:
    """Tell whether a Redis at this URL answers a PING."""
    try:
        with _client(url) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):  # ValueError: not a Redis URL
        return False


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=5)
