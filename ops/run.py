"""Runs a command in the environment of the system that runs in this folder: `python -m ops.run -- COMMAND...`."""

import os
import sys

from ops.command import Unusable, command_line
from ops.credentials import load_or_make
from ops.servers.endpoints import Folder, load_running


def main() -> None:
    """Replace this process by the command.

    The environment has the URLs of the broker and Redis for the user `tool`, who may read and requeue parked messages,
    and the URL and a key of the API for a client. Raises Unusable if no system runs, or the command cannot be run.
    """
    folder = Folder()
    command = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    if not command:
        raise Unusable("Usage: python -m ops.run -- COMMAND...")
    endpoints, credentials = load_running(folder), load_or_make(folder.credentials)
    environment = endpoints.environment("tool", credentials, os.environ)
    environment |= {"SLUICE_URL": endpoints.api_url, "SLUICE_KEY": credentials.api_key}
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as exc:
        raise Unusable(f"{command[0]} cannot be run: {exc.strerror}.") from None


if __name__ == "__main__":
    command_line(main)
