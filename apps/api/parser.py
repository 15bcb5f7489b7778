"""Parses heavy bodies in a separate process, as pydantic holds the GIL while it validates.

light body (`apps.api.body.is_light`) --> parsed on the event loop, in a few milliseconds at most
heavy body --> its client's turn --> the process: scan, validate --> inputs, or 4xx
                                        `--too much CPU time--> 413, and a new process
    above DEADLINE_S in all, or WAITING_MAX bodies of the client are waiting --> 503 refused
"""

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from apps.api import errors, metrics
from apps.api.parser_process import BATCH, CPU_MAX_S, INPUT, Parsed, ParserProcess, inputs
from apps.contract.message import Payload
from apps.contract.tasks import Registry

# From the request to the inputs: the longest turn of another client, and half of that for this body.
DEADLINE_S = 1.5 * CPU_MAX_S
# Waiting bodies per client: 8 MiB of memory.
WAITING_MAX = 8
# Batches per client that are read and parsed at once: 4 MiB of memory. If one of them is refused, the waiting ones are
# refused without reading them.
BATCHES_READ = 4
# Batches per client that are read and parsed, or waiting.
BATCHES_MAX = 64

_Turn = asyncio.Future[None]


class Batches:
    """The batches of one client: a few are read and parsed at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(BATCHES_READ)
        self._count = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for earlier batches; the block must read and parse this one.

        Raises 503 `refused` if the wait exceeds DEADLINE_S, or if too many batches are waiting.
        """
        if self._count >= BATCHES_MAX:
            raise _refused()
        self._count += 1
        try:
            await self._wait()
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._count -= 1

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._turns.acquire()
        except TimeoutError:
            raise _refused() from None


class Parser:
    """The process, which is started by the first heavy body, and the waiting bodies."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # client -> its waiting bodies; the client whose last turn is the longest ago is first
        self._waiting: dict[str, deque[_Turn]] = {}
        self._busy = False
        self._process: ParserProcess | None = None

    @property
    def waiting(self) -> int:
        """The number of waiting bodies."""
        return sum(not turn.done() for own in self._waiting.values() for turn in own)

    async def parse_input(self, owner: str, body: bytes) -> Payload:
        """Like `apps.api.body.parse_input`. Also raises the 413 problem of a too complex body, and 503 `refused`."""
        (parsed,) = await self._parse(owner, INPUT, body)
        assert isinstance(parsed, Payload)  # noqa: S101 - the problem of the only input is that of the body
        return parsed

    async def parse_batch(self, owner: str, body: bytes) -> list[Parsed]:
        """Like `apps.api.body.parse_batch`. Raises like `parse_input`."""
        return await self._parse(owner, BATCH, body)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    async def _parse(self, owner: str, kind: int, body: bytes) -> list[Parsed]:
        try:
            async with asyncio.timeout(DEADLINE_S), self._turn(owner):
                for _ in range(2):  # retry once with a new process: it may have been killed from outside
                    with suppress(EOFError, ConnectionError):
                        return await self._ask(kind, body)
                    metrics.PARSER_LOST.inc()
        except TimeoutError:
            raise _refused() from None
        message = "the model's validator ended its process"
        raise errors.invalid([{"loc": [], "msg": message, "type": "validator_failed"}])

    async def _ask(self, kind: int, body: bytes) -> list[Parsed]:
        """The inputs in a body. Raises its problem, and EOFError or ConnectionError if the process has ended."""
        if self._process is None:
            self._process = await ParserProcess.start(self._registry)
        process, complete = self._process, False
        try:
            answer = await process.ask(kind, body)
            complete = True
        except (EOFError, ConnectionError):
            if process.end() != signal.SIGPROF:
                raise
            raise errors.too_complex(f"validating it may take {CPU_MAX_S:g} s of a CPU at most") from None
        finally:
            if not complete:  # the next body would get a late answer
                self.close()
        return inputs(answer)

    @asynccontextmanager
    async def _turn(self, owner: str) -> AsyncIterator[None]:
        """Wait until the process is free, in turns with the other clients. Raises 503 `refused`."""
        if self._busy:
            await self._wait(owner)
        self._busy = True
        try:
            yield
        finally:
            self._free()

    async def _wait(self, owner: str) -> None:
        own = self._waiting[owner] = deque(turn for turn in self._waiting.get(owner, ()) if not turn.done())
        turn: _Turn = asyncio.get_running_loop().create_future()
        if len(own) >= WAITING_MAX:
            raise _refused()
        own.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it got its turn at the same moment
                self._free()
            raise

    def _free(self) -> None:
        """Give the turn to the client whose last turn is the longest ago."""
        self._busy = False
        while self._waiting and not self._busy:
            owner = next(iter(self._waiting))
            own = self._waiting.pop(owner)
            while own and not self._busy:
                turn = own.popleft()
                if not turn.done():
                    self._busy = True
                    turn.set_result(None)
            if own:
                self._waiting[owner] = own


def _refused() -> errors.Problem:
    metrics.REFUSED.labels("parser-busy").inc()
    return errors.refused("parser-busy")
