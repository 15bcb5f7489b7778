"""Quotas: how many tasks a client may have accepted per second, and waiting or running at once.

A post is admitted from a share that this process holds in memory, by comparing and subtracting integers. Each second
`run` reports to Redis what was accepted, and receives a new share; no request waits for that:

    Redis: open tasks (counted by the API, lowered by the scripts in apps/contract/states.py), tokens of a bucket
      |  renew: report accepted tasks, receive what is left, divided by the number of replicas
    share of one replica --charge--> publish --accept (confirmed) | give back (refused, unknown)

Several replicas that use their whole shares within one second exceed the quota by at most that: replicas x share. While
Redis is away the last share stays in force: the rate goes on in memory, and as no task can end either, open tasks only
grow, up to the share. A report has a number and is repeated until it is answered: Redis applies it once.
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
# A client may use the rate of so many seconds at once, and at least one batch: which is admitted or refused whole.
BURST_S = 10
# A replica that has not renewed for so long gets no share.
REPLICA_S = 5
REPORTS_S = 3600
REPLICAS = "sluice:replicas"
# Of a client's refused posts between two renewals the first are answered at once, and the others after HELD_S, half of
# it more or less: each connection of a client that ignores Retry-After then costs one refusal in two seconds, and not
# all of the CPU. With the same time for all, 64 connections would send their next 64 batches in the same moment. Beyond
# HELD_MAX they are answered at once, so that the number of held requests is bounded.
PROMPT_MAX = 8
HELD_MAX = 1000
HELD_S = 2.0

# KEYS: the client's counts, REPLICAS, this replica's reports. ARGV: this replica, the client, number of the report,
# life of the counts (s), rate, burst, tasks that were admitted, then pairs: field, tasks that were accepted.
# Answers {open tasks, tokens, replicas}. A report that was applied before is not applied again.
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
    """What was admitted and accepted between two renewals."""

    number: int
    admitted: int
    accepted: dict[str, int]
    """By the field of the client's counts."""


class Share:
    """What this process may admit of one client until the next renewal."""

    def __init__(self, owner: str, limits: Quota) -> None:
        self.owner = owner
        self.quota = limits
        self.burst = max(BATCH_MAX, BURST_S * limits.tasks_per_s)
        self.rate_left = self.burst
        self.open_left = limits.open_tasks
        self.settled = False
        """Whether the client had no open task and all its tokens at the last renewal: the share need not be renewed."""
        self.report: Report | None = None
        self.batches = Batches()
        """One is parsed at a time: when it is refused, those that came with it are refused unparsed."""
        self._numbers = itertools.count(1)
        self._in_flight = 0  # tasks that are admitted and have no outcome yet
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
        """Whether not even one task would be admitted."""
        return self.rate_left < 1 or self.open_left < 1

    @property
    def refuses_batches(self) -> bool:
        """Whether a batch is refused unread: also after another one was refused, until the share is renewed.

        How many tasks a batch has is known only once it is parsed, which may take milliseconds.
        """
        return self.exhausted or self._refused_batch > 0

    def fits(self, tasks: int) -> bool:
        """Whether so many tasks would be admitted."""
        return not tasks or (tasks <= self.rate_left and tasks <= self.open_left)

    def charge(self, tasks: int) -> "Charge":
        """Admit tasks for the length of a block. Raises as `admit`."""
        self.admit(tasks)
        return Charge(self, tasks)

    def admit(self, tasks: int) -> None:
        """Admit tasks, all or none; each is then either `accepted` or given back. Raises the 429 problem."""
        if tasks and (tasks > self.rate_left or tasks > self.open_left):  # as `fits`, without a call
            raise self.refusal(tasks)
        self.rate_left -= tasks
        self.open_left -= tasks
        self._admitted += tasks
        self._in_flight += tasks

    def refusal_unread(self) -> errors.Problem:
        """The 429 problem of a batch that was not read."""
        return self.refusal(self._refused_batch or 1)

    def refusal(self, tasks: int) -> errors.Problem:
        """The 429 problem of a post of so many tasks."""
        self._refused += 1
        if tasks > 1:
            self._refused_batch = max(self._refused_batch, tasks)
        limit = "open_tasks" if tasks > self.open_left else "tasks_per_s"
        metrics.QUOTA_REFUSED.labels(self.owner, limit).inc()
        missing = tasks - max(0, self.rate_left)
        after_s = math.ceil(missing / self.quota.tasks_per_s) if limit == "tasks_per_s" else errors.RETRY_AFTER_S
        held_s = 0.0
        if PROMPT_MAX < self._refused <= HELD_MAX:
            held_s = HELD_S * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        return errors.quota_exceeded(self.quota, limit, tasks, after_s=max(1, after_s), held_s=held_s)

    def accepted(self, task_id: str) -> None:
        """Count a task that the broker has."""
        self._in_flight -= 1
        period = quota.field(task_id)
        self._accepted[period] = self._accepted.get(period, 0) + 1

    def give_back(self, tasks: int) -> None:
        """Take back what was admitted and not accepted."""
        self._in_flight -= tasks
        self._admitted -= tasks
        self.rate_left += tasks
        self.open_left += tasks

    def next_report(self) -> Report:
        """What is to be reported: the same as before until it was answered."""
        if self.report is None:
            self.report = Report(next(self._numbers), self._admitted, self._accepted)
            self._admitted, self._accepted = 0, {}
        return self.report

    def renew(self, open_tasks: int, tokens: int, replicas: int) -> None:
        """Take what is left of the quota, divided by the replicas; as much as a refused batch needed, if there is."""
        self.report = None
        self.settled = not open_tasks and tokens >= self.burst
        self._replicas = max(1, replicas)
        self.rate_left = self._part(tokens) - self._admitted
        self.open_left = self._part(self.quota.open_tasks - open_tasks) - self._in_flight - sum(self._accepted.values())
        self._begin_period()

    def refill(self) -> None:
        """Go on without Redis: this replica's part of the rate, which is then not taken from the bucket in Redis."""
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
    """Tasks that were admitted; at the end of the block those that were not accepted are given back."""

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
        """The broker has one of the tasks."""
        self._left -= 1
        self._share.accepted(task_id)

    def raise_to(self, tasks: int) -> None:
        """Admit the tasks that are missing to so many. Raises the 429 problem."""
        if tasks > self._left:
            self._share.admit(tasks - self._left)
            self._left = tasks


class Quotas:
    """The shares of all clients, kept up by `run`."""

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
        """Raise the 429 problem, before a post is read, where not even one task would be admitted."""
        share = self.of(owner)
        if share.exhausted:
            raise share.refusal(1)

    async def run(self) -> None:
        """Renew the shares each second until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.renew()
            except Exception:  # whatever it is: without this task no share is renewed again
                log.exception("quotas not renewed")

    async def renew(self) -> None:
        """Report and renew the shares that are in use, and one of the others, so that this replica stays known."""
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
