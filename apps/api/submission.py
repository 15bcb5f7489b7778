"""Publishes validated inputs as tasks: one input or a batch, with or without an Idempotency-Key."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import OutOfMemoryError

from apps import logs
from apps.api import errors, metrics
from apps.api.idempotency import Keys, Post
from apps.api.publisher import CONFIRMED, Outcome, Publisher
from apps.api.quotas import Charge, Quotas, Share
from apps.api.redis_memory import RedisMemory
from apps.api.store import Unavailable
from apps.contract.ids import TaskIds
from apps.contract.message import Payload, task_message
from apps.contract.tasks import Registry

# Unconfirmed publishes per batch: enough to use the connection fully, and leaves room for other requests.
WINDOW = 100
NOT_SENT = Outcome("refused", "not-sent")


class Submitted(NamedTuple):
    """The task id and the publish outcome of an input."""

    task_id: str
    outcome: Outcome


def _results_full() -> errors.Problem:
    metrics.REFUSED.labels("results-full").inc()
    return errors.results_full()


class Submitter:
    """Assigns ids to inputs, and publishes them."""

    def __init__(  # noqa: PLR0913, PLR0917 - parts of one service, with distinct types
        self,
        registry: Registry,
        ids: TaskIds,
        publisher: Publisher,
        keys: Keys,
        redis_memory: RedisMemory,
        quotas: Quotas,
        *,
        deadline_s: float,
    ) -> None:
        self._registry = registry
        self._ids = ids
        self._publisher = publisher
        self._keys = keys
        self._redis_memory = redis_memory
        self._quotas = quotas
        self._deadline_s = deadline_s

    async def submit_one(self, owner: str, payload: Payload, *, key: str | None, body: bytes) -> Submitted:
        """Publish one input. Raises like `submit`."""
        if key is not None:
            (submitted,) = await self.submit(owner, [payload], key=key, body=body)
            assert submitted is not None  # noqa: S101 - the payload is not None
            return submitted
        if self._redis_memory.full:
            raise _results_full()
        share = self._quotas.of(owner)
        task_id = self._ids.new(owner)
        share.admit(1)
        outcome = None
        try:
            outcome = await self._publish_one(owner, payload, task_id)
        finally:  # also for a client that went away in between
            if outcome is CONFIRMED:
                share.accepted(task_id)
            else:
                share.give_back(1)
        return Submitted(task_id, outcome)

    async def submit(
        self, owner: str, inputs: Sequence[Payload | None], *, key: str | None, body: bytes
    ) -> list[Submitted | None]:
        """Publish inputs; None stands for an invalid input. Returns their outcomes in the same order.

        With a key, tasks that an earlier request had accepted are not published again, and use no quota. Raises the 503
        problem of a full Redis, the problems of a quota, and those of a key, in this order.
        """
        if self._redis_memory.full and any(inputs):
            raise _results_full()
        share = self._quotas.of(owner)
        first_id = self._ids.new(owner)
        tasks = sum(payload is not None for payload in inputs)
        if key is None:
            with share.charge(tasks) as charge:
                return await self._publish(charge, owner, inputs, first_id, accepted=0)
        with await self._charge(share, tasks, owner, key) as charge:
            return await self._submit_once(charge, owner, inputs, key, body, first_id)

    async def require_batch_share(self, share: Share, owner: str, key: str | None) -> None:
        """Raise the 429 problem of a batch before it is parsed, unless it may repeat an accepted batch."""
        if share.refuses_batches and not (key is not None and await self._is_known(owner, key)):
            raise share.refusal_unread()

    async def _charge(self, share: Share, tasks: int, owner: str, key: str) -> Charge:
        """Charge before the claim, so that a refused post leaves no key. A known key is charged after its claim."""
        known = not share.fits(tasks) and await self._is_known(owner, key)
        return share.charge(0 if known else tasks)

    async def _is_known(self, owner: str, key: str) -> bool:
        try:
            return await self._keys.is_known(owner, key)
        except Unavailable:
            metrics.REFUSED.labels("redis-away").inc()
            raise errors.refused("redis-away") from None

    async def _submit_once(  # noqa: PLR0913, PLR0917 - `submit` with a key
        self, charge: Charge, owner: str, inputs: Sequence[Payload | None], key: str, body: bytes, first_id: str
    ) -> list[Submitted | None]:
        wanted = sum(1 << index for index, payload in enumerate(inputs) if payload)
        try:
            claim = await self._keys.claim(Post(owner, key, body, wanted, self._open_s(len(inputs))), first_id)
        except Unavailable as exc:
            if isinstance(exc.__cause__, OutOfMemoryError):  # full since its memory was last read
                raise _results_full() from None
            metrics.REFUSED.labels("redis-away").inc()
            raise errors.refused("redis-away") from None
        if claim.done:
            metrics.REPEATED.inc()
            return await self._publish(charge, owner, inputs, claim.first_id, claim.accepted)
        accepted, refused = claim.accepted, True  # nothing was sent yet
        try:
            charge.raise_to((wanted & ~accepted).bit_count())
            refused = False
            submitted = await self._publish(charge, owner, inputs, claim.first_id, accepted)
            confirmed = (1 << i for i, one in enumerate(submitted) if one and one.outcome is CONFIRMED)
            accepted |= sum(confirmed)
            refused = not accepted and all(one is None or one.outcome.kind == "refused" for one in submitted)
        finally:  # also for a client that went away in between
            self._keys.settle(claim, accepted, refused=refused)
        return submitted

    def _open_s(self, inputs: int) -> float:
        """The maximum duration of `_publish`."""
        return self._deadline_s * (1 if inputs == 1 else 2)

    async def _publish(
        self, charge: Charge, owner: str, inputs: Sequence[Payload | None], first_id: str, accepted: int
    ) -> list[Submitted | None]:
        """Publish the inputs that are not accepted yet.

        After the first unknown outcome, and after the deadline, no more are sent: this bounds the duration to twice the
        deadline.
        """
        submitted: list[Submitted | None] = [None] * len(inputs)
        end_s = time.monotonic() + self._deadline_s
        waiting = iter(enumerate(inputs))
        stopped = False

        async def publish_some() -> None:
            nonlocal stopped
            for index, payload in waiting:
                task_id = self._ids.member(first_id, index, owner)
                if accepted >> index & 1:  # even if only another replica knows its task
                    outcome = CONFIRMED
                elif payload is None:
                    continue
                elif stopped or time.monotonic() > end_s:
                    outcome = NOT_SENT
                    metrics.REFUSED.labels(outcome.reason).inc()
                else:
                    outcome = await self._publish_one(owner, payload, task_id)
                    if outcome is CONFIRMED:
                        charge.accept(task_id)
                    stopped = stopped or outcome.kind == "unknown"
                submitted[index] = Submitted(task_id, outcome)

        if len(inputs) == 1:  # in the request's context, so its log lines have the task id
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
        metrics.publish_seconds(outcome.kind).observe(time.perf_counter() - started_s)
        if outcome is CONFIRMED:
            metrics.accepted(spec.name).inc()
        else:
            metrics.REFUSED.labels(outcome.reason).inc()
        return outcome
