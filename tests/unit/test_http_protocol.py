"""apps/api/http.py: joins small writes of uvicorn into one write to the socket."""

import asyncio
from typing import Any, cast

from apps.api.http import JOINED_MAX_BYTES, Joined


class Transport:
    """Records all writes."""

    def __init__(self) -> None:
        self.seen: list[bytes | str] = []
        self.lost = False

    def write(self, data: bytes) -> None:
        if self.lost:
            raise RuntimeError("the handler is closed")
        self.seen.append(data)

    def close(self) -> None:
        self.seen.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.seen


def joined() -> tuple[Any, Transport]:
    transport = Transport()
    return Joined(cast("asyncio.Transport", transport), asyncio.get_running_loop()), transport


async def turn() -> None:
    await asyncio.sleep(0)


def test_head_and_body_are_written_at_once() -> None:
    async def run() -> None:
        answer, transport = joined()
        answer.write(b"head")
        assert transport.seen == []
        answer.write(b"body")
        assert transport.seen == [b"headbody"]
        await turn()
        assert transport.seen == [b"headbody"]

    asyncio.run(run())


def test_single_write_is_flushed_at_the_end_of_the_loop_iteration() -> None:
    async def run() -> None:
        answer, transport = joined()
        answer.write(b"head of a stream")
        await turn()
        assert transport.seen == [b"head of a stream"]
        for part in (b"one", b"two", b"three"):
            answer.write(part)
        await turn()
        assert transport.seen[1:] == [b"onetwo", b"three"]

    asyncio.run(run())


def test_close_flushes_pending_data() -> None:
    async def run() -> None:
        answer, transport = joined()
        answer.write(b"last")
        answer.close()
        await turn()
        assert transport.seen == [b"last", "closed"]
        assert answer.is_closing()

    asyncio.run(run())


def test_nothing_is_written_to_a_disconnected_client() -> None:
    async def run() -> None:
        answer, transport = joined()
        answer.write(b"held")
        transport.lost = True
        answer.discard()
        for answered in (b"a request that was sent before", b"x" * JOINED_MAX_BYTES * 2):
            answer.write(answered)
        answer.resume_reading()  # must not reach the transport, which has no such method
        await turn()
        answer.close()
        assert transport.seen == ["closed"]

    asyncio.run(run())


def test_long_write_is_not_copied() -> None:
    async def run() -> None:
        answer, transport = joined()
        long = b"x" * (JOINED_MAX_BYTES + 1)
        answer.write(b"head")
        answer.write(long)
        assert transport.seen[0] == b"head"
        assert transport.seen[1] is long
        answer.write(b"tail")
        await turn()
        assert transport.seen[2:] == [b"tail"]

    asyncio.run(run())
