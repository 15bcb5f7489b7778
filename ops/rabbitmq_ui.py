"""Prints the URL and the credentials of RabbitMQ's management page: `python -m ops.rabbitmq_ui [--cluster]`.

With --cluster, forwards a local port to the management page of the cluster until Ctrl-C.
"""

import contextlib
import sys

from ops import cluster
from ops.command import Unusable, command_line, show
from ops.credentials import load_or_make
from ops.definitions import ADMIN
from ops.servers.endpoints import Folder, load_running
from ops.tools import kubectl

# a forgotten port-forward ends after this time
FORWARD_TIMEOUT_S = 8 * 3600


def of_this_machine() -> None:
    """Print the URL of the system that runs in this folder. Raises Unusable if none runs, or its broker is external."""
    folder = Folder()
    url = load_running(folder).management_url
    if url is None:
        raise Unusable("The broker is the one in CELERY_BROKER_URL: ask its operator for the management page.")
    _print(url, load_or_make(folder.credentials).broker_password_admin)


def of_the_cluster() -> None:
    """Print the URL and forward the port until Ctrl-C. Raises Unusable if the cluster has no RabbitMQ credentials."""
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
    """Run for the cluster with --cluster, otherwise for this machine."""
    if sys.argv[1:] == ["--cluster"]:
        of_the_cluster()
    else:
        of_this_machine()


if __name__ == "__main__":
    command_line(main)
