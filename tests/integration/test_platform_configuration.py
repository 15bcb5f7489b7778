"""Redis and RabbitMQ start with the configuration of helm-releases/ and clusters/, and refuse unknown keys."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis as Client

from ops.command import ROOT, Unusable, output
from ops.credentials import Credentials
from ops.definitions import VERSION, of_cluster
from ops.files import write_private
from ops.servers import debian, newer
from ops.servers.child import until
from ops.servers.programs import ensure
from ops.servers.rabbitmq import RabbitMQ
from ops.servers.redis import Redis
from ops.tools import cache, kubectl
from tests.harness.servers import ImportingRabbitMQ, given_root
from tests.harness.thorough import thorough

FOLDERS = ("helm-releases", "clusters/local/infrastructure", "loadtest/cluster-platform")
# settings that a Redis on this machine needs besides the text
ADDRESS = {"bind", "port", "user", "daemonize"}
# First version of RabbitMQ that knows a key; Debian 12 has RabbitMQ 3.10.
SINCE = {"default_queue_type": (3, 12)}


def values(folder: str, name: str) -> dict[str, Any]:
    """Return the values of a chart in a folder."""
    objects = yaml.safe_load_all(output(kubectl(), "kustomize", ROOT / folder, timeout_s=60))
    found = (each for each in objects if (each["kind"], each["metadata"]["name"]) == ("HelmRelease", name))
    return dict(next(found)["spec"]["values"])


class LandedRedis(Redis):
    """A Redis with the text of a manifest, its own address, and a data folder on this machine."""

    text = ""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.folder / "redis.conf"
        lines = [line for line in path.read_text().splitlines() if line.split()[0] in ADDRESS]
        write_private(path, "\n".join([*lines, self.text.replace("dir /data", f'dir "{self.folder}"')]))


class LandedRabbitMQ(ImportingRabbitMQ):
    """A RabbitMQ with the texts of a manifest."""

    advanced = ""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        write_private(self.folder / "advanced.config", self.advanced)
        path = self.folder / "rabbitmq.conf"
        place = f"{'/srv' if self._root else self.folder}/defs.json"
        lines = f"definitions.import_backend = local_filesystem\ndefinitions.local.path = {place}\n"
        write_private(path, path.read_text() + lines)


def newer_root() -> Path | None:
    """Return the root file system with RabbitMQ 4.3, if it was built before and we are root."""
    there = cache() / debian.name(newer.SUITE, newer.PACKAGES)
    return given_root() or (there if there.is_dir() and os.geteuid() == 0 else None)


def known(text: str, version: tuple[int, ...]) -> list[str]:
    """Return the lines of a text that this version of RabbitMQ knows."""
    return [line for line in text.splitlines() if SINCE.get(line.partition(" =")[0], (0,)) <= version]


@contextmanager
def redis(folder: Path, text: str) -> Iterator[Redis]:
    server = LandedRedis(folder, ensure())
    server.text = text
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def rabbitmq(folder: Path, text: str, advanced: str) -> Iterator[RabbitMQ]:
    root, credentials = newer_root(), Credentials()
    version = VERSION if root else (3, 10)
    server = LandedRabbitMQ(folder, ensure(), password=credentials.broker_password_admin, root=root)
    server.definitions = json.dumps(of_cluster(credentials, version))
    server.more_configuration, server.advanced = known(text, version), advanced
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.stop()


@pytest.mark.parametrize("folder", FOLDERS)
def test_redis_starts_with_the_configuration_of_each_platform(folder: str, tmp_path: Path) -> None:
    text = values(folder, "redis")["extraConfig"]
    with redis(tmp_path, text) as server, Client.from_url(server.url()) as client:
        settings = client.config_get("save", "appendonly", "maxmemory-policy")
    assert settings == {"save": "", "appendonly": "yes", "maxmemory-policy": "noeviction"}


# without loadtest/cluster-platform, which does not change RabbitMQ
@pytest.mark.parametrize("folder", [FOLDERS[0], *thorough(FOLDERS[1])])
def test_rabbitmq_starts_with_the_configuration_of_each_platform(folder: str, tmp_path: Path) -> None:
    config = values(folder, "rabbitmq")["config"]
    with rabbitmq(tmp_path, config["extraConfiguration"], config["advancedConfiguration"]) as server:

        def limit() -> int | None:  # the node publishes its numbers shortly after its start
            found: int | None = server.management("/api/nodes")[0].get("disk_free_limit")
            return found

        until(lambda: limit() is not None, 30, "the node's numbers")
        assert limit() == {"helm-releases": 2 * 10**9}.get(folder, 200 * 10**6)


def test_load_cluster_does_not_change_redis_and_rabbitmq() -> None:
    for name in ("redis", "rabbitmq"):
        assert values("loadtest/cluster-platform", name) == values("clusters/local/infrastructure", name)


def test_redis_refuses_an_unknown_key(tmp_path: Path) -> None:
    text = values("helm-releases", "redis")["extraConfig"].replace("appendfsync", "apendfsync")
    with pytest.raises(Unusable, match="Redis ended"), redis(tmp_path, text):
        pass
    assert "apendfsync" in (tmp_path / "redis.log").read_text()


def test_rabbitmq_refuses_an_unknown_key(tmp_path: Path) -> None:
    config = values("helm-releases", "rabbitmq")["config"]
    text = config["extraConfiguration"].replace("disk_free_limit.absolute", "disk_free_limit.absolut")
    with pytest.raises(Unusable, match="RabbitMQ ended"), rabbitmq(tmp_path, text, config["advancedConfiguration"]):
        pass
    assert "disk_free_limit.absolut" in (tmp_path / "rabbitmq.log").read_text()


@pytest.mark.thorough
def test_rabbitmq_refuses_an_invalid_advanced_configuration(tmp_path: Path) -> None:
    config = values("helm-releases", "rabbitmq")["config"]
    advanced = config["advancedConfiguration"].replace("}]}].", "}]}]")
    with pytest.raises(Unusable, match="RabbitMQ ended"), rabbitmq(tmp_path, config["extraConfiguration"], advanced):
        pass
