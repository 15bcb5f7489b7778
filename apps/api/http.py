"""uvicorn's HTTP protocol, with head and body of an answer in one write: `uvicorn --http apps.api.http:Protocol`.

uvicorn writes them one after the other, and each is a system call that wakes whoever reads: a tenth of what an accepted
task costs.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """As uvicorn's own, on a transport that joins writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        self._joined = Joined(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._joined))

    def connection_lost(self, exc: Exception | None) -> None:
        self._joined.discard()
        super().connection_lost(exc)


class Joined:
    """A transport that holds a write back for the next one, at most until the event loop's turn is over."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            self._transport.write(self._held + data)
            self._held = b""
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def discard(self) -> None:
        """Forget what is held: nobody is there any more, and to write it would raise."""
        self._held = b""

    def _flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""
