"""Switch off one protection, for the runs that prove that the checker finds its absence.

tests/chaos/{api,worker}.py apply this to the process from outside: the product has no such options.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from apps.amqp import connection, frames, template
from apps.amqp.confirms import CONFIRMED
from apps.api import idempotency
from apps.contract import states, topology
from apps.worker import backend
from apps.worker.script import Script
from tests.harness.tasks import EFFECTS

WITHOUT = "CHAOS_WITHOUT"
# A file beside the effects file: the first process that has a result to store kills its worker instead.
KILL_UNSTORED, TAKEN = "kill-unstored.order", ".taken"


def _without_confirms() -> None:
    send = connection.Connection.send

    def answered_at_once(
        self: connection.Connection, publish_id: str, encoded: bytes, future: Any, due_s: float
    ) -> None:
        send(self, publish_id, encoded, future, due_s)
        future.set_result(CONFIRMED)

    connection.Connection.send = answered_at_once  # type: ignore[method-assign]


def _without_mandatory() -> None:
    encoded = frames.encoded

    def plain(method: Any, channel: int) -> bytes:
        method.mandatory = False
        return encoded(method, channel)

    template.encoded = plain  # type: ignore[attr-defined]


class _LateKeys(idempotency.Keys):
    """Write a key's record only after the broker accepted the publish, as a cache of answers would."""

    async def claim(self, post: idempotency.Post, new_id: str) -> idempotency.Claim:
        claim = await super().claim(post, new_id)
        if not claim.done:
            await self._store.call("DEL", *claim.records)
            _COMMANDS[claim.records[0]] = self._command(post, claim.records, claim.first_id)
        return claim

    def settle(self, claim: idempotency.Claim, accepted: int, *, refused: bool = False) -> None:
        command = _COMMANDS.pop(claim.records[0])
        if accepted:
            self._store.later(*command)
            super().settle(replace(claim, number=1), accepted, refused=refused)


_COMMANDS: dict[bytes, tuple[Any, ...]] = {}


def _without_key_before_publish() -> None:
    from apps.api import services  # noqa: PLC0415 - only the API has these packages

    services.Keys = _LateKeys  # type: ignore[attr-defined]


_CLAIMED = "if string.sub(record, string.byte(record, 2) + 1) ~= ARGV[7] then return 'claimed' end\n"
_FINAL = (
    "elseif letter or (KEYS[3] ~= 'sl:e:' and redis.pcall('SISMEMBER', KEYS[3], ARGV[3]) == 1) then\n  return 'final'\n"
)


def _without_claim() -> None:
    backend.BEGIN = Script(_removed(states.BEGIN, _CLAIMED))


def _without_end_guard() -> None:
    backend.END = Script(_removed(states.END, _FINAL, _CLAIMED))


def _removed(text: str, *lines: str) -> str:
    for line in lines:
        assert line in text, line
        text = text.replace(line, "")
    return text


IN_API: dict[str, Callable[[], None]] = {
    "confirms": _without_confirms,
    "mandatory": _without_mandatory,
    "key-before-publish": _without_key_before_publish,
}
IN_WORKER: dict[str, Callable[[], None]] = {"claim": _without_claim, "end-guard": _without_end_guard}
SETTINGS = {
    "late-acks": {"task_acks_late": False},
    "reject-on-lost": {"task_reject_on_worker_lost": False},
    "retried-storing": {"result_backend_always_retry": False},
}
# tests/chaos/world.py leaves the other protections out when it starts their servers and processes.
ELSEWHERE = ("recorder", "quorum", "aof")
PROTECTIONS = (*IN_API, *IN_WORKER, *SETTINGS, *ELSEWHERE)


def weaken_api() -> None:
    """Switch off the protection that the environment names, if it belongs to the API."""
    IN_API.get(os.environ[WITHOUT], _nothing)()


def weaken_worker(app: Celery) -> None:
    """Switch off the protection that the environment names, if it belongs to the worker."""
    without = os.environ[WITHOUT]
    IN_WORKER.get(without, _nothing)()
    app.conf.update(SETTINGS.get(without, {}))


def obey_orders() -> None:
    """In the worker: before each result is stored, check for an order to kill the worker at this moment."""
    order = Path(os.environ[EFFECTS]).with_name(KILL_UNSTORED)
    end = backend.Backend.end

    def end_or_die(self: backend.Backend, *arguments: Any) -> str:
        with suppress(FileNotFoundError):  # another process may take the order first
            taken = order.rename(order.with_suffix(".taking"))
            worker = psutil.Process(os.getppid())
            taken.write_text(" ".join(str(each.pid) for each in (worker, *worker.children())))
            taken.rename(order.with_suffix(TAKEN))
            worker.kill()
            signal.pause()  # the kernel kills this process with its worker
        return end(self, *arguments)

    backend.Backend.end = end_or_die  # type: ignore[assignment]


def weaken_definitions(without: str) -> None:
    """Declare every queue as a classic queue, which lives on one node."""
    if without == "quorum":
        topology.QUEUE_ARGUMENTS["x-queue-type"] = "classic"


def _nothing() -> None:
    """Keep every protection."""
