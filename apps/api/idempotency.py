r"""Idempotency-Key: one id and one execution for a key and a body, however often and to whichever replica it is sent.

    (no record) --claim--> publishing --settle--> done       its id is answered from then on
                               |
                               `--settle (refused, unknown) or abandoned--> claimed by the next request:
                                  published again under the same id, with a new publish id

A record is a Redis hash by client and key. It is written before the publish, and settled soon after it. The answer does
not wait for that: a crash in between costs a second publish of the same id, and a repetition a 409 until the claim is
abandoned, but never a second id; `begin` (apps.contract.states) lets only one of them run. Semantics:
draft-ietf-httpapi-idempotency-key-header.

It lives from its first claim on, never longer for a later one: its id tells how old it is, and a task that was
published under an older id could be taken for forgotten (410) while it still waits.
"""

import time
from dataclasses import dataclass
from hashlib import blake2b

from apps.api import errors
from apps.api.store import TIMEOUT_S, Store
from apps.api.waiter import Waiter, set_within
from apps.contract import states

FORM = r"^[\x21-\x7e]+$"
KEY_MAX = 255

# KEYS: record. ARGV: digest of the body, id if there is none yet, age at which a claim is abandoned (s), life (s), bits
# of the inputs that are wanted.
# Answers {"mine" | "done" | "open" | "other", id, bits of the inputs that the broker has, number of this claim}.
# It is done for what was wanted then: who wants more, as a replica that knows a newer task, completes it.
CLAIM = """
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1000000
local record = redis.call('HMGET', KEYS[1], 'digest', 'id', 'done', 'claimed_s', 'accepted')
local digest, id, accepted = record[1], record[2] or ARGV[2], record[5] or '0'
if digest then
  if digest ~= ARGV[1] then return {'other', id, '0', 0} end
  if record[3] == ARGV[5] then return {'done', id, accepted, 0} end
  if now_s - record[4] < tonumber(ARGV[3]) then return {'open', id, '0', 0} end
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'id', id, 'claimed_s', string.format('%.6f', now_s))
local number = redis.call('HINCRBY', KEYS[1], 'claims', 1)
if not digest then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return {'mine', id, accepted, number}
"""

# KEYS: record, channel of its id. ARGV: number of the claim, bits of the inputs that the broker has, bits of those that
# were wanted, or '' if they are not all there.
# A claim that was taken over settles nothing: who took it publishes the same again, and settles that.
SETTLE = """
if redis.call('HGET', KEYS[1], 'claims') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'accepted', ARGV[2], 'claimed_s', '0')
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'done', ARGV[3]) end
redis.call('PUBLISH', KEYS[2], 'settled')
return 1
"""


@dataclass(frozen=True)
class Post:
    """A request with a key: whose, its body, the inputs to be published (bit i: input i), and how long that takes."""

    owner: str
    key: str
    body: bytes
    wanted: int
    open_s: float


@dataclass(frozen=True)
class Claim:
    """What a key stands for: the id of its first input, and which inputs the broker has already (bit i: input i)."""

    record: str
    first_id: str
    accepted: int
    wanted: int
    done: bool
    number: int


class Keys:
    """The records of all keys. A request waits `deadline_s` for another one's outcome; a key lives `life_s`."""

    def __init__(self, store: Store, waiter: Waiter, *, deadline_s: float, life_s: int) -> None:
        self._store = store
        self._waiter = waiter
        self._deadline_s = deadline_s
        self._life_s = life_s

    async def claim(self, post: Post, new_id: str) -> Claim:
        """Claim the key for the body, once the request that has it is settled or abandoned; until the deadline.

        Raises the 409 problem after it, the 422 one for another body, and the store's Unavailable.
        """
        # neither part has a NUL: a name comes from the environment, and a key has its form
        of_client = blake2b(f"{post.owner}\0{post.key}".encode(), digest_size=16).hexdigest()
        record = f"sluice:key:{of_client}"
        digest = blake2b(post.body, digest_size=16).hexdigest()
        # by then the process that has it got its answers from Redis and from the broker, or it is dead
        abandoned_s = TIMEOUT_S + post.open_s
        arguments = (digest, new_id, abandoned_s, self._life_s, f"{post.wanted:x}")
        kind, first_id, accepted, number = await self._store.call("EVAL", CLAIM, 1, record, *arguments)
        if kind == "open" and not self._waiter.full:
            end_s = time.monotonic() + self._deadline_s
            with self._waiter.watch(first_id) as settled:
                while kind == "open" and await set_within(settled, end_s - time.monotonic()):
                    kind, first_id, accepted, number = await self._store.call("EVAL", CLAIM, 1, record, *arguments)
        if kind == "open":
            raise errors.request_open()
        if kind == "other":
            raise errors.key_reused()
        return Claim(record, first_id, int(accepted, 16), post.wanted, kind == "done", number)

    def settle(self, claim: Claim, accepted: int) -> None:
        """Note what the broker has; not waited for. Where Redis is away the next request publishes the same id."""
        done = f"{claim.wanted:x}" if claim.wanted & ~accepted == 0 else ""
        arguments = (claim.record, states.channel(claim.first_id), claim.number, f"{accepted:x}", done)
        self._store.later("EVAL", SETTLE, 2, *arguments)
