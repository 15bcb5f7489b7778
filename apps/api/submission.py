"""From validated inputs to tasks that the broker has: one input or a batch, with an Idempotency-Key or without."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import OutOfMemoryError

from apps import logs
from apps.api import errors, ops
from apps.api.idempotency import Keys, Post
from apps.api.publisher import CONFIRMED, Outcome, Publisher
from apps.api.redis_memory import RedisMemory
from apps.api.store import Unavailable
from apps.contract.ids import TaskIds
from apps.contract.message import Payload, task_message
from apps.contract.tasks import Registry

# Of one batch unconfirmed at once: it fills the pipe to the broker, and leaves the publisher's window to others.
WINDOW = 100
NOT_SENT = Outcome("refused", "not-sent")


class Submitted(NamedTuple):
    """What became of one input."""

    task_id: str
    outcome: Outcome


def _results_full() -> errors.Problem:
    ops.REFUSED.labels("results-full").inc()
    return errors.results_full()


class Submitter:
    """Gives inputs their ids and publishes them."""

    def __init__(  # noqa: PLR0913 - what a post needs
        self,
        registry: Registry,
        ids: TaskIds,
        publisher: Publisher,
        keys: Keys,
        redis_memory: RedisMemory,
        *,
        deadline_s: float,
    ) -> None:
        self._registry = registry
        self._ids = ids
        self._publisher = publisher
        self._keys = keys
        self._redis_memory = redis_memory
        self._deadline_s = deadline_s

    async def submit(
        self, owner: str, inputs: Sequence[Payload | None], *, key: str | None, body: bytes
    ) -> list[Submitted | None]:
        """Publish each input, None for those that are none; answers in their order.

        With a key, what an earlier request with it had accepted is not published again. Raises the problems of a key,
        and the 503 one of a full Redis, before the key is claimed.
        """
        if self._redis_memory.full and any(inputs):
            raise _results_full()
        first_id = self._ids.new(owner)
        if key is None and len(inputs) == 1 and inputs[0] is not None:  # as nearly all are: without what others need
            return [Submitted(first_id, await self._publish_one(owner, inputs[0], first_id))]
        if key is None:
            return await self._publish(owner, inputs, first_id, accepted=0)
        wanted = sum(1 << index for index, payload in enumerate(inputs) if payload)
        try:
            claim = await self._keys.claim(Post(owner, key, body, wanted, self._open_s(len(inputs))), first_id)
        except Unavailable as exc:
            if isinstance(exc.__cause__, OutOfMemoryError):  # since the share was read
                raise _results_full() from None
            ops.REFUSED.labels("redis-away").inc()
            raise errors.refused("redis-away") from None
        if claim.done:
            ops.REPEATED.inc()
            return await self._publish(owner, inputs, claim.first_id, claim.accepted)
        accepted, refused = claim.accepted, False
        try:
            submitted = await self._publish(owner, inputs, claim.first_id, accepted)
            confirmed = (1 << i for i, one in enumerate(submitted) if one and one.outcome is CONFIRMED)
            accepted |= sum(confirmed)
            refused = not accepted and all(one is None or one.outcome.kind == "refused" for one in submitted)
        finally:  # also for a client that went away in between
            self._keys.settle(claim, accepted, refused=refused)
        return submitted

    def _open_s(self, inputs: int) -> float:
        """The longest that `_publish` takes."""
        return self._deadline_s * (1 if inputs == 1 else 2)

    async def _publish(
        self, owner: str, inputs: Sequence[Payload | None], first_id: str, accepted: int
    ) -> list[Submitted | None]:
        """Publish those that the broker does not have.

        After the first that it may not have, and after the deadline, no more are sent: so two deadlines are the most.
        """
        submitted: list[Submitted | None] = [None] * len(inputs)
        end_s = time.monotonic() + self._deadline_s
        waiting = iter(enumerate(inputs))
        stopped = False

        async def publish_some() -> None:
            nonlocal stopped
            for index, payload in waiting:
                task_id = self._ids.member(first_id, index, owner)
                if accepted >> index & 1:  # also one that this replica knows no task for: another had it accepted
                    outcome = CONFIRMED
                elif payload is None:
                    continue
                elif stopped or time.monotonic() > end_s:
                    outcome = NOT_SENT
                    ops.REFUSED.labels(outcome.reason).inc()
                else:
                    outcome = await self._publish_one(owner, payload, task_id)
                    stopped = stopped or outcome.kind == "unknown"
                submitted[index] = Submitted(task_id, outcome)

        if len(inputs) == 1:  # in the request's own context: its log lines name the task
            await publish_some()
            return submitted
        async with asyncio.TaskGroup() as group:
            for _ in range(min(WINDOW, len(inputs))):
                group.create_task(publish_some())
        return submitted

    async def _publish_one(self, owner: str, payload: Payload, task_id: str) -> Outcome:
        logs.task_id.set(task_id)
        spec = self._registry[payload.task]
        request_id = logs.request_id.get() or ""
        started_s = time.perf_counter()
        trace = logs.traceparent.get()
        message = task_message(
            spec, payload.text, task_id=task_id, owner=owner, request_id=request_id, traceparent=trace
        )
        outcome = await self._publisher.publish(message)
        ops.publish_seconds(outcome.kind).observe(time.perf_counter() - started_s)
        if outcome is CONFIRMED:
            ops.accepted(spec.name).inc()
        else:
            ops.REFUSED.labels(outcome.reason).inc()
        return outcome
