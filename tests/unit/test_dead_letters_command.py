"""The command that requeues a parked message, with a broker that does not answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from apps.contract import failures
from apps.contract.ids import TaskIds
from apps.worker import dead_letters
from apps.worker.dead_letter_reader import DeadLetter

pytestmark = pytest.mark.anyio

HEADERS = {"id": "parked", "task": "celery:first", "owner": "me"}
LETTER = DeadLetter(b"", HEADERS, b"[[], {}, {}]", failures.revoked("a test"), kept=False)


class Redis:
    async def hsetnx(self, *_: object) -> None: ...

    async def expire(self, *_: object) -> None: ...

    async def hget(self, *_: object) -> str:
        return "the-new-id"


async def test_requeue_times_out_without_a_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(*_: object) -> list[Any]:
        return [SimpleNamespace(tag=1, summary={}, letter=LETTER)]

    async def never_confirmed(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(dead_letters, "DEADLINE_S", 0.05)
    monkeypatch.setattr(dead_letters, "_found", found)
    monkeypatch.setattr(dead_letters, "_obstacle", lambda _: None)
    monkeypatch.setattr(dead_letters, "republished", lambda *_, **__: None)
    monkeypatch.setattr("apps.broker.publish", never_confirmed)
    unused: Any = None
    redis: Any = Redis()
    asked = asyncio.create_task(dead_letters.requeue(unused, redis, TaskIds(b"k" * 16), "parked", 1))
    await asyncio.wait([asked], timeout=2)
    assert asked.done()
    assert isinstance(asked.exception(), TimeoutError)
