"""Prints where RabbitMQ's management page is, and its credentials: `python -m ops.rabbitmq_ui [--cluster]`.

With --cluster it is the cluster's, forwarded to this machine until Ctrl-C.
"""

import contextlib
import sys

from ops import cluster
from ops.command import Unusable, command_line, show
from ops.credentials import load_or_make
from ops.definitions import ADMIN
from ops.servers.endpoints import Folder, load_running
from ops.tools import kubectl

# a forward that is forgotten ends by itself
FORWARD_TIMEOUT_S = 8 * 3600


def of_this_machine() -> None:
    """The page of the system that runs in this folder."""
    folder = Folder()
    url = load_running(folder).management_url
    if url is None:
        raise Unusable("The broker is the one in CELERY_BROKER_URL: its management page is wherever its owner put it.")
    _print(url, load_or_make(folder.credentials).broker_password_admin)


def of_the_cluster() -> None:
    """The cluster's page, forwarded."""
    cluster.check()
    if not cluster.has("secret", "rabbitmq-auth", "--namespace=data"):
        raise Unusable("The cluster has no Secret data/rabbitmq-auth: run `make secrets platform` first.")
    _print("http://localhost:15672", cluster.secret("data", "rabbitmq-auth")["password"])
    forward = ("port-forward", "service/rabbitmq", "15672:15672", "--namespace=data")
    with contextlib.suppress(KeyboardInterrupt):
        show(kubectl(), *forward, timeout_s=FORWARD_TIMEOUT_S)


def _print(url: str, password: str) -> None:
    print(f"RabbitMQ's management page: {url}\n  user      {ADMIN}\n  password  {password}")


def main() -> None:
    """One of the two."""
    if sys.argv[1:] == ["--cluster"]:
        of_the_cluster()
    else:
        of_this_machine()


if __name__ == "__main__":
    command_line(main)
