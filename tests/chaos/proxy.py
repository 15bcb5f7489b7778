"""A proxy between processes and the broker, which injects faults of a network.

reset      every open and every new connection is reset until `heal`
silence    connections stay open, but data is dropped until `heal`, which then resets the connections that lost data,
           as a real network's clients would find them
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

Address = tuple[str, int]


class _Pair:
    """A client's connection and the connection behind it."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = list(writers)
        self.robbed = False

    def reset(self) -> None:
        for writer in self.writers:
            plain = writer.get_extra_info("socket")
            with suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends a RST
            writer.transport.abort()


class Proxy:
    """Loopback ports in front of addresses, in its own thread; a context manager."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._pairs: set[_Pair] = set()
        self._servers: list[asyncio.Server] = []
        self._mode = "open"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        self.ports = started.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self) -> None:
        """Reset open and new connections until `heal`."""
        self._call(lambda: self._set("reset"))

    def silence(self) -> None:
        """Drop all data until `heal`."""
        self._call(lambda: self._set("silent"))

    def heal(self) -> None:
        """Forward everything again."""
        self._call(lambda: self._set("open"))

    def _set(self, mode: str) -> None:
        self._mode = mode
        for pair in list(self._pairs):
            if mode == "reset" or (mode == "open" and pair.robbed):
                pair.reset()

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(10)

    async def _start(self) -> list[int]:
        ports = []
        for address in self._addresses:
            server = await asyncio.start_server(partial(self._serve, address), "127.0.0.1", 0)
            self._servers.append(server)
            ports.append(int(server.sockets[0].getsockname()[1]))
        return ports

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for pair in list(self._pairs):
            pair.reset()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        if serving:
            await asyncio.wait(serving)

    async def _serve(self, to: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            if self._mode == "reset":
                pair.reset()
                return
            if self._mode == "silent":
                pair.robbed = True
                await reader.read(-1)
                return
            inner_reader, inner_writer = await asyncio.open_connection(*to)
            pair.writers.append(inner_writer)
            await asyncio.gather(self._pour(pair, reader, inner_writer), self._pour(pair, inner_reader, writer))
        except OSError:  # the address behind it refuses connections
            pair.reset()
        finally:
            self._pairs.discard(pair)
            for each in pair.writers:
                each.close()

    async def _pour(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._mode == "silent":
                    pair.robbed = True
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()  # closes the other side too
