"""Clients that read results in an endless loop: `python -m tests.harness.result_readers URL KEY CLIENTS ID...`.

They have their own process: receiving gigabytes must not delay the clients whose waiting time is measured.
"""

import asyncio
import sys
from itertools import cycle, islice
from urllib.parse import urlsplit

READ_BYTES = 256 * 1024


async def read(url: str, key: str, task_id: str, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
    """Read a task on an open connection and discard the body. Returns the size of the body in bytes."""
    reader, writer = connection
    host = urlsplit(url).netloc
    writer.write(f"GET /tasks/{task_id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = left = int(head.partition("content-length:")[2].split("\r\n")[0])
    while left:
        part = await reader.read(min(left, READ_BYTES))
        if not part:
            raise EOFError
        left -= len(part)
    assert head.split()[1] == "200", head
    return length


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the API."""
    address = urlsplit(url)
    return await asyncio.open_connection(address.hostname, address.port, limit=READ_BYTES)


async def _loop(url: str, key: str, task_ids: list[str]) -> None:
    connection = await connect(url)
    for task_id in cycle(task_ids):
        await read(url, key, task_id, connection)
        sys.stdout.write(".")
        sys.stdout.flush()


async def _main(url: str, key: str, clients: int, task_ids: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for first in range(clients):
            mine = list(islice(cycle(task_ids), first, first + len(task_ids)))
            group.create_task(_loop(url, key, mine))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
