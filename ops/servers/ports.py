"""Finds free ports on the loopback interface."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from ops.files import lock_file, private_folder


def free_ports(count: int) -> list[int]:
    """Reserve free loopback ports below the ephemeral range, whose ports outgoing connections may use.

    Lock files reserve the ports for this process until it ends, also while a server is being restarted.
    """
    folder = private_folder(Path(tempfile.gettempdir()) / f"sluice-ports-{os.getuid()}")
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)  # noqa: S311
        lock = lock_file(folder / str(port))
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_open(port):
                ports.append(port)
                continue
        os.close(lock)
    return ports


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server listens on this port of the host."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
