"""An attack on the APIs until SIGTERM: `python -m tests.chaos.attacker KIND`. Started by tests/chaos/attacks.py.

It has its own API key, and writes the outcome of each post to the ledger. A connection that the API closes is opened
again.
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.journal import Flood, Journal

BATCH = 1000
ACCEPTED = 202
_IDS = re.compile('"task_id":"([^"]+)"')
MIB = 1024 * 1024
ANSWER_TIMEOUT_S = 60.0
# Intervals between the bytes of a slow sender, and before a connection is opened again.
SLOW_S, AGAIN_S = 1.0, 0.2
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Attacker:
    """An attacker with one API key."""

    def __init__(self, apis: list[str], key: str, ledger: Path) -> None:
        self._apis = [(str(url.hostname), int(url.port or 80)) for url in map(urlsplit, apis)]
        self._key = key
        self._ledger = Journal(ledger)
        self._watching = asyncio.Lock()
        self._watched = ""

    async def repeat(self, one: Callable[[tuple[str, int], Streams], Awaitable[None]]) -> None:
        """Open a connection to a random API, run `one` on it, and repeat."""
        while True:
            api = random.choice(self._apis)  # noqa: S311
            with suppress(OSError, EOFError, TimeoutError, ValueError):
                streams = await asyncio.open_connection(*api)
                try:
                    await one(api, streams)
                finally:
                    streams[1].close()
            await asyncio.sleep(AGAIN_S)

    def head(self, method: str, path: str, length: int | None = None) -> bytes:
        """Return the head of a request."""
        body = "" if length is None else f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
        return f"{method} {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {self._key}\r\n{body}\r\n".encode()

    async def slow_head(self, _: tuple[str, int], streams: Streams) -> None:
        await _drip(streams, self.head("POST", "/tasks", 100)[:-2] + b"X-Slow: ")

    async def slow_body(self, _: tuple[str, int], streams: Streams) -> None:
        await _drip(streams, self.head("POST", "/tasks", 1000) + b'{"task": "')

    async def stream(self, api: tuple[str, int], streams: Streams) -> None:
        """Follow the events of one sleeping task; all connections follow the same task."""
        async with self._watching:
            if not self._watched:
                _, answer = await self._post(api, streams, "/tasks", b'{"task":"idle","name":"x","seconds":30}')
                self._watched = json.loads(answer)["task_id"]
        streams[1].write(self.head("GET", f"/tasks/{self._watched}/events"))
        while await streams[0].read(65536):
            pass

    async def heavy(self, api: tuple[str, int], streams: Streams) -> None:
        """Post bodies near the maximum size (many keys, deep nesting, many items, long texts), and larger ones."""
        for body in HEAVY:
            await self._post(api, streams, random.choice(["/tasks", "/tasks/batch"]), body)  # noqa: S311

    async def batches(self, api: tuple[str, int], streams: Streams) -> None:
        """Post batches of tasks one after the other, without a pause after a refusal."""
        body = json.dumps({"tasks": [{"task": "idle", "name": "x", "seconds": 0}] * BATCH}).encode()
        while True:
            await self._post(api, streams, "/tasks/batch", body, BATCH)

    async def _post(
        self, api: tuple[str, int], streams: Streams, path: str, body: bytes, tasks: int = 1
    ) -> tuple[int, bytes]:
        reader, writer = streams
        sent_s, status, ids = time.time(), 0, []
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(self.head("POST", path, len(body)) + body)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                status = int(head.split()[1])
                answer = await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
            ids = _IDS.findall(answer.decode()) if status == ACCEPTED else []
        finally:
            self._ledger.append(Flood(api[1], sent_s, time.time(), status, tasks, len(ids), (*ids[:1], *ids[1:][-1:])))
        return status, answer


async def _drip(streams: Streams, begin: bytes) -> None:
    reader, writer = streams
    writer.write(begin)
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(SLOW_S):
                if not await reader.read(65536):
                    return


HEAVY = (
    b'{"task":"idle",' + b",".join(b'"%d":0' % number for number in range(95_000)) + b"}",
    b'{"task":"idle","name":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    b'{"task":"idle","name":' + b'{"a":' * 150_000 + b"1" + b"}" * 150_000 + b"}",
    b'{"tasks":[' + b",".join([b"{}"] * 300_000) + b"]}",
    b'{"task":"idle","seconds":0,"name":"' + b"\\u0041" * 170_000 + b'"}',
    b'{"task":"idle","seconds":' + b"9" * 1_000_000 + b"}",
    b" " * (8 * MIB),
)
# kind -> number of connections, and method to call for each
KINDS: dict[str, tuple[int, str]] = {
    "slow-heads": (400, "slow_head"),
    "slow-bodies": (400, "slow_body"),
    "many-streams": (1500, "stream"),
    "heavy-bodies": (24, "heavy"),
    "greedy-client": (64, "batches"),
}


async def main(kind: str) -> None:
    """Attack until SIGTERM."""
    env = os.environ
    attacker = Attacker(env["CHAOS_APIS"].split(","), env["CHAOS_KEY"], Path(env["CHAOS_LEDGER"]))
    connections, what = KINDS[kind]
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    running = [asyncio.create_task(attacker.repeat(getattr(attacker, what))) for _ in range(connections)]
    await ending.wait()
    for each in running:
        each.cancel()
    await asyncio.wait(running)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
