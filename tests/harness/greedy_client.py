"""Posts batches over many connections: `python -m tests.harness.greedy_client URL KEY CONNECTIONS PAUSE_S`.

Each connection posts its next batch immediately after each answer, and ignores Retry-After. With a pause, the
connections post in turn, one batch per pause. At SIGTERM it prints the number of answers per status as JSON.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit

TASKS = 1000
BODY = json.dumps({"tasks": [{"task": "sleep", "name": f"{number:0200}"} for number in range(TASKS)]}).encode()


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request, read the whole answer and return its status."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])


def request(path: str, key: str, body: bytes, **headers: str) -> bytes:
    """Return a POST request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {key}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def main(url: str, key: str, connections: int, pause_s: float) -> None:
    """Post until SIGTERM."""
    at = urlsplit(url)
    told: Counter[int] = Counter()
    batch = request("/tasks/batch", key, BODY)

    async def flood(number: int) -> None:
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        if pause_s:
            await asyncio.sleep(number * pause_s)
        while True:
            told[await post(reader, writer, batch)] += 1
            if pause_s:
                await asyncio.sleep(connections * pause_s)

    floods = asyncio.gather(*(flood(number) for number in range(connections)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, floods.cancel)
    try:
        await floods
    except asyncio.CancelledError:
        sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
