"""Says where RabbitMQ's management page is, and the credentials for it (`make rabbitmq-ui`)."""

import sys

from ops.command import command_line
from ops.credentials import load_or_make
from ops.servers.endpoints import Folder, load_running
from ops.servers.rabbitmq import ADMIN


def main() -> None:
    """Print them for the system that runs in this folder."""
    folder = Folder()
    url = load_running(folder).management_url
    if url is None:
        sys.exit("The broker is the one in CELERY_BROKER_URL: its management page is wherever its owner put it.")
    password = load_or_make(folder.credentials).broker_password_admin
    print(f"RabbitMQ's management page: {url}\n  user      {ADMIN}\n  password  {password}")


if __name__ == "__main__":
    command_line(main)
