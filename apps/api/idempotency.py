r"""Idempotency-Key: one id and one execution for a key and a body, however often and to whichever replica it is sent.

    (no record) --claim--> publishing --settle--> done       its id is answered from then on
                               |
                               `--settle (refused, unknown) or abandoned--> claimed by the next request:
                                  published again under the same id, with a new publish id

A record is a Redis hash by client and key. It is written before the publish and settled after it, so that a crash in
between costs a second publish of the same id, and never a second id; `begin` (apps.contract.states) lets only one of
them run. Semantics: draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

from apps.api import errors
from apps.api.store import TIMEOUT_S, Store, Unavailable
from apps.api.waiter import Waiter
from apps.contract import states

FORM = r"^[\x21-\x7e]+$"
KEY_MAX = 255

# KEYS: record. ARGV: digest of the body, id if there is none yet, age at which a claim is abandoned (s), life (s).
# Answers {"mine" | "done" | "open" | "other", id, bits of the inputs that the broker has}.
CLAIM = """
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1000000
local record = redis.call('HMGET', KEYS[1], 'digest', 'id', 'done', 'claimed_s', 'accepted')
local digest, id, accepted = record[1], record[2] or ARGV[2], record[5] or '0'
if digest then
  if digest ~= ARGV[1] then return {'other', id, '0'} end
  if record[3] then return {'done', id, accepted} end
  if now_s - record[4] < tonumber(ARGV[3]) then return {'open', id, '0'} end
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'id', id, 'claimed_s', string.format('%.6f', now_s))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {'mine', id, accepted}
"""

# KEYS: record, channel of its id. ARGV: bits of the inputs that the broker has, '1' if those are all.
SETTLE = """
if redis.call('HEXISTS', KEYS[1], 'done') == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'accepted', ARGV[1], 'claimed_s', '0')
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'done', '1') end
redis.call('PUBLISH', KEYS[2], 'settled')
return 1
"""


@dataclass(frozen=True)
class Claim:
    """What a key stands for: the id of its first input, and which inputs the broker has already (bit i: input i)."""

    record: str
    first_id: str
    accepted: int
    done: bool


class Keys:
    """The records of all keys; `deadline_s` is how long a publish may take."""

    def __init__(self, store: Store, waiter: Waiter, *, deadline_s: float, life_s: int) -> None:
        self._store = store
        self._waiter = waiter
        self._deadline_s = deadline_s
        # by then its process has its answer from Redis and from the broker, or it is dead
        self._abandoned_s = TIMEOUT_S + deadline_s
        self._life_s = life_s

    async def claim(self, owner: str, key: str, body: bytes, new_id: str) -> Claim:
        """Claim a key for a body, once the request that has it is settled or abandoned; until the deadline.

        Raises the 409 problem after it, the 422 one for another body, and Unavailable.
        """
        record = f"sluice:key:{blake2b(f'{owner}/{key}'.encode(), digest_size=16).hexdigest()}"
        arguments = (blake2b(body, digest_size=16).hexdigest(), new_id, self._abandoned_s, self._life_s)
        kind, first_id, accepted = await self._store.call("EVAL", CLAIM, 1, record, *arguments)
        if kind == "open":
            with suppress(TimeoutError):
                async with asyncio.timeout(self._deadline_s), self._waiter.watch(first_id) as settled:
                    while kind == "open":
                        await settled.wait()
                        settled.clear()
                        kind, _, accepted = await self._store.call("EVAL", CLAIM, 1, record, *arguments)
        if kind == "open":
            raise errors.request_open()
        if kind == "other":
            raise errors.key_reused()
        return Claim(record, first_id, int(accepted, 16), kind == "done")

    async def settle(self, claim: Claim, accepted: int, *, done: bool) -> None:
        """Note what the broker has. Nothing is lost when Redis is away: the next request publishes the same id."""
        channel = states.channel(claim.first_id)
        with suppress(Unavailable):
            await self._store.call("EVAL", SETTLE, 2, claim.record, channel, f"{accepted:x}", "1" if done else "0")
