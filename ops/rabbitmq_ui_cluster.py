"""Forwards RabbitMQ's management page of the cluster to this machine: `python -m ops.rabbitmq_ui_cluster`."""

import base64
import contextlib
import json

from ops import cluster
from ops.command import Unusable, command_line, show
from ops.definitions import ADMIN
from ops.tools import kubectl

# a forward that is forgotten ends by itself
FORWARD_TIMEOUT_S = 8 * 3600


def main() -> None:
    """Say the credentials, and forward until Ctrl-C."""
    cluster.check()
    secret = ("secret", "rabbitmq-auth", "--namespace=data")
    if not cluster.has(*secret):
        raise Unusable("The cluster has no Secret data/rabbitmq-auth: run `make secrets platform` first.")
    text = cluster.ask("get", *secret, "--output=json")
    password = base64.b64decode(json.loads(text)["data"]["password"]).decode()
    print(f"RabbitMQ's management page: http://localhost:15672\n  user      {ADMIN}\n  password  {password}")
    forward = ("port-forward", "service/rabbitmq", "15672:15672", "--namespace=data")
    with contextlib.suppress(KeyboardInterrupt):
        show(kubectl(), *forward, timeout_s=FORWARD_TIMEOUT_S)


if __name__ == "__main__":
    command_line(main)
