"""A broker that loads the definitions of the chart at its start matches the contract."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from apps.contract import topology
from ops.credentials import Credentials
from ops.definitions import VERSION, of_cluster
from ops.servers import inspection
from ops.servers.programs import ensure
from ops.servers.rabbitmq import RabbitMQ
from tests.harness.servers import ImportingRabbitMQ

ROOT = os.environ.get("SLUICE_TEST_RABBITMQ_ROOT")


class Defined(ImportingRabbitMQ):
    """A node that imports definitions at its start."""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        folder = Path("/srv") if self._root else self.folder
        lines = (
            "definitions.import_backend = local_filesystem",
            f"definitions.local.path = {folder}/defs.json",
            "definitions.skip_if_unchanged = true",
        )
        with (self.folder / "rabbitmq.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return Credentials()


@pytest.fixture(scope="module")
def broker(credentials: Credentials, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    folder, root = tmp_path_factory.mktemp("defined"), Path(ROOT) if ROOT else None
    node = Defined(folder, ensure(), password=credentials.broker_password_admin, root=root)
    node.definitions = json.dumps(of_cluster(credentials, VERSION if ROOT else (3, 10)))
    try:
        node.start()  # waits until the management API accepts the administrator
        yield node
    finally:
        node.kill()
        node.stop()


def test_broker_matches_the_contract(broker: RabbitMQ) -> None:
    inspection.check(broker.url(), f"http://admin:{broker.password}@127.0.0.1:{broker.management_port}")


def test_broker_has_no_other_user(broker: RabbitMQ) -> None:
    assert {user["name"] for user in broker.management("/api/users")} == {"admin", *topology.USERS}


@pytest.mark.parametrize("user", topology.USERS)
def test_each_user_can_connect_only_with_its_own_password(
    broker: RabbitMQ, credentials: Credentials, user: str
) -> None:
    with kombu.Connection(broker.url(user, getattr(credentials, f"broker_password_{user}"))) as connection:
        connection.connect()
    with (
        kombu.Connection(broker.url(user, credentials.redis_password_api)) as stranger,
        pytest.raises(stranger.channel_errors, match="ACCESS_REFUSED"),
    ):
        stranger.connect()
