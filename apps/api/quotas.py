"""Quotas of a client: accepted tasks per second, and open (waiting or running) tasks.

Posts are admitted from a share in this process's memory, by comparing and subtracting integers. Each second `run`
reports the accepted tasks to Redis, and receives a new share; requests do not wait for it:

    Redis: open tasks (decremented by the scripts in apps/contract/states.py), tokens of a token bucket
      |  renew: report accepted tasks, receive the rest of the quota divided by the number of replicas
    share of one replica --charge--> publish --accept (confirmed) | give back (refused, unknown)

Replicas that use their whole shares within one second exceed the quota by at most replicas x share. During an outage of
Redis, the last share remains valid: the rate continues in memory, and the open tasks grow up to the share, as no task
can end. Reports are numbered and repeated until they are answered; Redis applies each once.
"""

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from apps.api import errors, metrics
from apps.api.body import BATCH_MAX
from apps.api.parser import Batches
from apps.api.store import Store, Unavailable
from apps.contract import quota
from apps.contract.ids import random_hex
from apps.contract.keys import ApiKey
from apps.contract.quota import Quota

log = logging.getLogger(__name__)

RENEW_S = 1.0
# Burst: a client may use the rate of this many seconds at once, and at least one batch, which is admitted as a whole.
BURST_S = 10
# A replica that has not renewed for this time gets no share.
REPLICA_S = 5
REPORTS_S = 3600
REPLICAS = "sluice:replicas"
# Between two renewals, a client's first IMMEDIATE_MAX refused posts are answered immediately, and the others after
# REFUSAL_DELAY_S, plus or minus half of it: a connection of a client that ignores Retry-After then causes one refusal
# in two seconds, instead of using all CPU time. With a constant delay, 64 connections would send their next 64 batches
# simultaneously.
# Above DELAYED_MAX, refusals are immediate again: this bounds the number of delayed requests.
IMMEDIATE_MAX = 8
DELAYED_MAX = 1000
REFUSAL_DELAY_S = 2.0

# KEYS: the client's counts, REPLICAS, this replica's reports. ARGV: this replica, the client, number of the report,
# life of the counts (s), rate, burst, number of admitted tasks, then pairs of field and number of accepted tasks.
# Returns {open tasks, tokens, replicas}. A repeated report is not applied again.
RENEW = f"""
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1000000
redis.call('ZADD', KEYS[2], now_s, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_s - {REPLICA_S})
local admitted = 0
if tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or 0) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
  admitted = tonumber(ARGV[7])
  for i = 8, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('EXPIRE', KEYS[3], {REPORTS_S})
local rate, burst = tonumber(ARGV[5]), tonumber(ARGV[6])
local oldest = math.floor((now_s - ARGV[4]) * 1000 / {2**quota.PERIOD_BITS})
local open, tokens, refilled_s = 0, burst, now_s
local counts = redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  local name, value = counts[i], tonumber(counts[i + 1])
  local period = tonumber(name, 16)
  if name == 'tokens' then tokens = value
  elseif name == 'refilled_s' then refilled_s = value
  elseif value == 0 or not period or period < oldest then redis.call('HDEL', KEYS[1], name)
  elseif value > 0 then open = open + value end
end
tokens = math.max(-burst, math.min(burst, tokens + rate * math.max(0, now_s - refilled_s) - admitted))
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'refilled_s', string.format('%.6f', now_s))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {{open, math.floor(tokens), redis.call('ZCARD', KEYS[2])}}
"""


class Report(NamedTuple):
    """Numbers of admitted and accepted tasks between two renewals."""

    number: int
    admitted: int
    accepted: dict[str, int]
    """By field of the client's counts."""


class Share:
    """The tasks of one client that this process may admit until the next renewal."""

    def __init__(self, owner: str, limits: Quota) -> None:
        self.owner = owner
        self.quota = limits
        self.burst = max(BATCH_MAX, BURST_S * limits.tasks_per_s)
        self.rate_left = self.burst
        self.open_left = limits.open_tasks
        self.settled = False
        """Whether the client had no open tasks and all its tokens at the last renewal: no renewal is needed."""
        self.report: Report | None = None
        self.batches = Batches()
        """A few are parsed at a time: if one is refused, the waiting ones are refused without parsing."""
        self._numbers = itertools.count(1)
        self._in_flight = 0  # admitted tasks without an outcome
        self._admitted = 0  # since the last report
        self._accepted: dict[str, int] = {}
        self._refused = 0  # posts since the last renewal
        self._refused_batch = 0  # tasks of the largest batch that was refused since the last renewal
        self._replicas = 1
        self._refilled_s = time.monotonic()

    @property
    def touched(self) -> bool:
        """Whether anything was admitted or refused since the last renewal."""
        return bool(self._admitted or self._accepted or self._refused or self._in_flight or self.report)

    @property
    def exhausted(self) -> bool:
        """Whether no task would be admitted."""
        return self.rate_left < 1 or self.open_left < 1

    @property
    def refuses_batches(self) -> bool:
        """Whether a batch is refused without reading it: after a refused batch, until the share is renewed.

        The number of tasks in a batch is known only after parsing, which may take milliseconds.
        """
        return self.exhausted or self._refused_batch > 0

    def fits(self, tasks: int) -> bool:
        """Whether this number of tasks would be admitted."""
        return not tasks or (tasks <= self.rate_left and tasks <= self.open_left)

    def charge(self, tasks: int) -> "Charge":
        """Admit tasks for the length of a block. Raises like `admit`."""
        self.admit(tasks)
        return Charge(self, tasks)

    def admit(self, tasks: int) -> None:
        """Admit all tasks or none; then call `accepted` or `give_back` for each. Raises the 429 problem."""
        if tasks and (tasks > self.rate_left or tasks > self.open_left):  # `fits`, inlined
            raise self.refusal(tasks)
        self.rate_left -= tasks
        self.open_left -= tasks
        self._admitted += tasks
        self._in_flight += tasks

    def refusal_unread(self) -> errors.Problem:
        """The 429 problem of an unread batch."""
        return self.refusal(self._refused_batch or 1)

    def refusal(self, tasks: int) -> errors.Problem:
        """The 429 problem of a post with this number of tasks."""
        self._refused += 1
        if tasks > 1:
            self._refused_batch = max(self._refused_batch, tasks)
        limit = "open_tasks" if tasks > self.open_left else "tasks_per_s"
        metrics.QUOTA_REFUSED.labels(self.owner, limit).inc()
        missing = tasks - max(0, self.rate_left)
        after_s = math.ceil(missing / self.quota.tasks_per_s) if limit == "tasks_per_s" else errors.RETRY_AFTER_S
        held_s = 0.0
        if IMMEDIATE_MAX < self._refused <= DELAYED_MAX:
            held_s = REFUSAL_DELAY_S * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        return errors.quota_exceeded(self.quota, limit, tasks, after_s=max(1, after_s), held_s=held_s)

    def accepted(self, task_id: str) -> None:
        """Count an accepted task."""
        self._in_flight -= 1
        period = quota.field(task_id)
        self._accepted[period] = self._accepted.get(period, 0) + 1

    def give_back(self, tasks: int) -> None:
        """Release tasks that were admitted but not accepted."""
        self._in_flight -= tasks
        self._admitted -= tasks
        self.rate_left += tasks
        self.open_left += tasks

    def next_report(self) -> Report:
        """The next report, or the previous one if it is unanswered."""
        if self.report is None:
            self.report = Report(next(self._numbers), self._admitted, self._accepted)
            self._admitted, self._accepted = 0, {}
        return self.report

    def renew(self, open_tasks: int, tokens: int, replicas: int) -> None:
        """Set the share: the rest of the quota divided by the replicas, or the size of a refused batch if possible."""
        self.report = None
        self.settled = not open_tasks and tokens >= self.burst
        self._replicas = max(1, replicas)
        self.rate_left = self._part(tokens) - self._admitted
        self.open_left = self._part(self.quota.open_tasks - open_tasks) - self._in_flight - sum(self._accepted.values())
        self._begin_period()

    def refill(self) -> None:
        """Refill the share during an outage of Redis, with this replica's part of the rate; Redis does not count it."""
        fresh = int((time.monotonic() - self._refilled_s) * self.quota.tasks_per_s / self._replicas)
        if fresh:
            self._admitted -= min(fresh, max(0, self._admitted))
            self.rate_left = max(self.rate_left, min(self.rate_left + fresh, self._part(self.burst)))
            self._begin_period()
        self._refused = self._refused_batch = 0

    def _begin_period(self) -> None:
        self._refused = self._refused_batch = 0
        self._refilled_s = time.monotonic()

    def _part(self, left: int) -> int:
        return max(-(-left // self._replicas), min(left, self._refused_batch)) if left > 0 else 0


class Charge:
    """Admitted tasks; the end of the block releases those that were not accepted."""

    __slots__ = ("_left", "_share")

    def __init__(self, share: Share, tasks: int) -> None:
        self._share = share
        self._left = tasks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._left:
            self._share.give_back(self._left)

    def accept(self, task_id: str) -> None:
        """The broker has accepted one of the tasks."""
        self._left -= 1
        self._share.accepted(task_id)

    def raise_to(self, tasks: int) -> None:
        """Admit more tasks, up to `tasks` in all. Raises the 429 problem."""
        if tasks > self._left:
            self._share.admit(tasks - self._left)
            self._left = tasks


class Quotas:
    """The shares of all clients, renewed by `run`."""

    def __init__(self, store: Store, keys: Iterable[ApiKey], default: Quota, *, life_s: int, anyone: str) -> None:
        self._store = store
        self._life_s = life_s
        self._replica = random_hex()
        limits = {
            key.name: Quota(key.tasks_per_s or default.tasks_per_s, key.open_tasks or default.open_tasks)
            for key in keys
        }
        self._shares = {owner: Share(owner, each) for owner, each in (limits or {anyone: default}).items()}
        self.of: Callable[[str], Share] = self._shares.__getitem__
        """The share of a client."""
        self._turns = itertools.cycle(self._shares.values())

    def require_one(self, owner: str) -> None:
        """Raise the 429 problem, before a post is read, if no task would be admitted."""
        share = self.of(owner)
        if share.exhausted:
            raise share.refusal(1)

    async def run(self) -> None:
        """Renew the shares each second until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.renew()
            except Exception:  # this task must survive any error: only it renews shares
                log.exception("quotas not renewed")

    async def renew(self) -> None:
        """Renew the shares in use, and one of the others, so that Redis continues to count this replica."""
        due = {share.owner: share for share in self._shares.values() if share.touched or not share.settled}
        turn = next(self._turns)
        await asyncio.gather(*map(self._renew, (due | {turn.owner: turn}).values()))

    async def _renew(self, share: Share) -> None:
        report = share.next_report()
        keys = (quota.key(share.owner), REPLICAS, f"sluice:reports:{self._replica}")
        limits = (self._life_s, share.quota.tasks_per_s, share.burst)
        pairs: list[Any] = [each for pair in report.accepted.items() for each in pair]
        arguments = (self._replica, share.owner, report.number, *limits, report.admitted, *pairs)
        try:
            open_tasks, tokens, replicas = await self._store.call("EVAL", RENEW, len(keys), *keys, *arguments)
        except Unavailable:
            share.refill()
            return
        share.renew(open_tasks, tokens, replicas)
        metrics.QUOTA_OPEN.labels(share.owner).set(open_tasks)
