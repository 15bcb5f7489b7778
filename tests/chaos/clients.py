"""The clients: many tasks in one process, which post at a constant rate and write every answer to the ledger.

Started by tests/chaos/world.py; SIGTERM ends it once each open post has its outcome.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from apps.client import AsyncClient, OutcomeUnknown, Problem, TimedOut
from apps.contract.states import FINAL
from tests.chaos.endings import ENDLESS, ODD_ENDS
from tests.chaos.journal import Journal, Post, Seen, Try

CLIENTS = 100
# Share of posts with an Idempotency-Key.
KEYED = 0.5
# Share of work with the field that the previous release does not know.
NOTED = 0.2
# Time until a client gives up. Some give up before an outage ends: their outcome is "refused" or "unknown".
PATIENCE_S = (3.0, 30.0)
# A post with a key is repeated until its outcome is known.
LAST_DEADLINE_S = 120.0


class Balancer(httpx.AsyncBaseTransport):
    """Sends each request to a random API, and writes the tries of a post to the ledger."""

    def __init__(self, apis: list[str], ledger: Journal) -> None:
        self._apis = [httpx.URL(api) for api in apis]
        self._ledger = ledger
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, max_keepalive_connections=50))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        api = random.choice(self._apis)  # noqa: S311
        request.url = request.url.copy_with(host=api.host, port=api.port)
        sent_s = time.time()
        try:
            response = await self._inner.handle_async_request(request)
            await response.aread()
        except httpx.TransportError as exc:
            unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            self._note(request, api, sent_s, 0, {}, sent=not unsent)
            raise
        self._note(request, api, sent_s, response.status_code, _document(response))
        return response

    def _note(  # noqa: PLR0913 - the fields of a line of the ledger
        self,
        request: httpx.Request,
        api: httpx.URL,
        sent_s: float,
        status: int,
        told: dict[str, Any],
        *,
        sent: bool = True,
    ) -> None:
        if request.method == "POST":
            kind = str(told.get("type", "")).rpartition(":")[2]
            self._ledger.append(
                Try(
                    json.loads(request.content)["name"], request.headers.get("Idempotency-Key"), api.port or 0,
                    sent_s, time.time(), status, kind, told.get("reason", ""), told.get("task_id"), sent,
                )
            )  # fmt: skip


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(response.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


class Clients:
    """All clients."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._ledger = Journal(Path(env["CHAOS_LEDGER"]))
        transport = Balancer(env["CHAOS_APIS"].split(","), self._ledger)
        self._client = AsyncClient("http://api", env["CHAOS_KEY"], transport=transport)
        self._seed = env["CHAOS_SEED"]
        self._period_s = CLIENTS / float(env["CHAOS_PER_S"])
        self._work_s = float(env["CHAOS_WORK_S"])
        self._poison = float(env["CHAOS_POISON"])
        self._followed = float(env["CHAOS_FOLLOWED"])
        self._ending = asyncio.Event()
        self._following: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Stop posting."""
        self._ending.set()

    async def run(self) -> None:
        """Post until `end` is called."""
        async with self._client:
            await asyncio.gather(*(self._one(number) for number in range(CLIENTS)))
            await asyncio.gather(*self._following)

    async def _one(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")  # noqa: S311 - repeatable
        await self._rest(chance.random() * self._period_s)
        count = 0
        while not self._ending.is_set():
            started_s = time.monotonic()
            count += 1
            await self._post(chance, f"{number}-{count}")
            await self._rest(self._period_s * chance.uniform(0.5, 1.5) - (time.monotonic() - started_s))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._ending.wait()
        except TimeoutError:
            pass

    async def _post(self, chance: random.Random, name: str) -> None:
        inputs = mix(chance, work_s=self._work_s, poison=self._poison) | {"name": name}
        key = uuid4().hex if chance.random() < KEYED else None
        patience_s, followed = chance.choice(PATIENCE_S), chance.random() < self._followed
        sent_s = time.time()
        outcome, task_id = await self._submit(inputs, key, patience_s)
        if outcome == "unknown" and key:
            again, task_id = await self._submit(inputs, key, LAST_DEADLINE_S)
            outcome = "accepted" if again == "accepted" else outcome  # a later refusal does not settle the earlier try
        self._ledger.append(Post(name, str(inputs["task"]), key, outcome, task_id, sent_s, time.time()))
        if task_id and followed:
            follower = asyncio.create_task(self._follow(task_id))
            self._following.add(follower)
            follower.add_done_callback(self._following.discard)

    async def _submit(self, inputs: dict[str, Any], key: str | None, deadline_s: float) -> tuple[str, str | None]:
        try:
            submit = self._client.submit(inputs, key=key, idempotent=key is not None, deadline_s=deadline_s)
            return "accepted", await submit
        except Problem:
            return "refused", None
        except OutcomeUnknown:
            return "unknown", None

    async def _follow(self, task_id: str) -> None:
        try:
            task = await self._client.result(task_id, timeout_s=60.0)
        except (Problem, TimedOut):
            return
        if task.status in FINAL:
            self._ledger.append(Seen(task_id, task.status, task.result, time.time()))


def mix(chance: random.Random, *, work_s: float, poison: float) -> dict[str, Any]:  # noqa: PLR0911 - a case per task
    """Return the next input of a client: mostly work of about `work_s`, or of random length; `poison` is a share."""
    which = chance.random()
    if which < poison:
        return {"task": "poison"}
    if which < 0.005:
        return {"task": "fail"}
    if which < 0.015:
        return {"task": "flaky", "failures": chance.choice([1, 2])}
    if which < 0.03:
        return {"task": chance.choice(ODD_ENDS)}
    if which < 0.033:
        return {"task": chance.choice(ENDLESS)}
    if which < 0.04:
        return {"task": "added"}
    seconds = work_s or chance.choices([0.01, 0.2, 1.0, 5.0], weights=[0.85, 0.117, 0.03, 0.003])[0]
    note = {"note": "added"} if chance.random() < NOTED else {}
    return {"task": "work", "seconds": round(seconds * chance.uniform(0.5, 1.5), 4), **note}


async def main() -> None:
    """Post until SIGTERM."""
    clients = Clients(os.environ)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, clients.end)
    await clients.run()


if __name__ == "__main__":
    asyncio.run(main())
