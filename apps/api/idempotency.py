r"""Idempotency-Key: a key and a body get one id and one execution, for any number of requests to any replicas.

    (no record) --claim--> publishing --settle--> done       later requests get its id
                               |
                               `--settle (refused, unknown) or abandoned--> claimed by the next request:
                                  published again under the same id, with a new publish id

A record is one string per client and key. It is written before the publish, and settled soon after; the answer does not
wait for the settlement. After a crash in between, a repeated request gets a 409 until the claim is abandoned, and then
publishes the same id again, never a second id; `begin` (apps.contract.states) lets only one of them run. A definite
refusal leaves no record, as refused posts must not fill Redis. Semantics: draft-ietf-httpapi-idempotency-key-header.

    bytes 1 to 10     the body's digest, shortened
    11 to 26          the UUID of the first id; the rest of the id is derived from it and the client
    27                D: the broker has the only input. O: any other state, followed by
    28, 29            number of claims
    30 to 35          time of the last claim, in ms since the epoch; 0 after that claim is settled
    the rest          bits of the inputs that the broker has, a colon, bits of the requested inputs if it has them all

A record expires a fixed time after its first claim; later claims do not extend its life. Otherwise a task could be
published under an old id, and while it waits, the id's age would make it count as forgotten (410).
"""

import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from apps.api import errors
from apps.api.store import TIMEOUT_S, Store
from apps.api.waiter import Waiter, set_within
from apps.contract import states
from apps.contract.ids import TaskIds

# With 16 bytes of the digest of client and key, a Redis key fits into 24 bytes of the allocator.
_RECORD = b"sl:k:"
UUID_DIGITS = 32

# Kept bytes of the body's digest. They can be few: a client could only deceive itself by a collision.
DIGEST_BYTES = 10

# KEYS: record, record of version 0.1 (a hash, which stays in use). ARGV: digest of the body, UUID for a new record, age
# at which a claim is abandoned (ms), life (s), bits of the requested inputs, digest in the form of version 0.1.
# Returns {"mine" | "done" | "open" | "other", UUID or id, bits of the inputs that the broker has, number of this
# claim}; the UUID is empty for a new record.
# "done" applies to the same requested inputs only: a replica that knows a newer task may request more, and publishes
# them.
CLAIM = r"""
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local digest, id, claims, claimed_ms, accepted, done = ARGV[1], '', 0, 0, '0', ''
local record, hash = redis.pcall('GET', KEYS[1]), nil
if not record and redis.call('EXISTS', KEYS[2]) == 1 then
  hash = redis.call('HMGET', KEYS[2], 'digest', 'id', 'claims', 'claimed_s', 'accepted', 'done')
  digest = hash[1] == ARGV[6] and ARGV[1] or ''
  id, claims, claimed_ms, accepted, done = hash[2], hash[3], hash[4] * 1000, hash[5] or '0', hash[6] or ''
elseif record and not record.err then
  digest = string.sub(record, 1, 10)
  id = string.format(string.rep('%02x', 16), string.byte(record, 11, 26))
  if string.sub(record, 27, 27) == 'D' then
    accepted, done = '1', '1'
  else
    claims, claimed_ms = struct.unpack('>I2I6', record, 28)
    accepted, done = string.match(record, '^(%x*):(%x*)$', 36)
  end
end
if digest ~= ARGV[1] then return {'other', id, '0', 0} end
if done == ARGV[5] then return {'done', id, accepted, 0} end
if now_ms - claimed_ms < tonumber(ARGV[3]) then return {'open', id, '0', 0} end
claims = claims + 1
if hash then
  redis.call('HSET', KEYS[2], 'claimed_s', string.format('%.3f', now_ms / 1000), 'claims', claims)
else
  local state = 'O' .. struct.pack('>I2I6', claims, now_ms) .. accepted .. ':' .. done
  if id == '' then
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2] .. state, 'EX', ARGV[4])
  else
    redis.call('SET', KEYS[1], string.sub(record, 1, 26) .. state, 'KEEPTTL')
  end
end
return {'mine', id, accepted, claims}
"""

# KEYS: record, record of version 0.1, channel of its id. ARGV: number of the claim, bits of the inputs that the broker
# has, bits of the requested inputs or '' if it does not have them all, 1 if no message can have reached the broker.
# A claim that another request has taken over is not settled: that request publishes the same inputs, and settles them.
SETTLE = f"""{states.ALSO_WHEN_FULL}
local record, number = redis.pcall('GET', KEYS[1]), tonumber(ARGV[1])
local kept = record and KEYS[1] or KEYS[2]
if record then
  if record.err or string.sub(record, 27, 27) ~= 'O' or struct.unpack('>I2', record, 28) ~= number then return 0 end
elseif redis.call('HGET', KEYS[2], 'claims') ~= ARGV[1] then
  return 0
end
if ARGV[4] == '1' and number == 1 then
  redis.call('DEL', kept)
elseif not record then
  redis.call('HSET', KEYS[2], 'accepted', ARGV[2], 'claimed_s', '0')
  if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], 'done', ARGV[3]) end
elseif ARGV[2] == '1' and ARGV[3] == '1' then
  redis.call('SET', KEYS[1], string.sub(record, 1, 26) .. 'D', 'KEEPTTL')
else
  local bits = ARGV[2] .. ':' .. ARGV[3]
  redis.call('SET', KEYS[1], string.sub(record, 1, 29) .. '\\000\\000\\000\\000\\000\\000' .. bits, 'KEEPTTL')
end
redis.call('PUBLISH', KEYS[3], 'settled')
return 1
"""


@dataclass(frozen=True)
class Post:
    """A request with a key: owner, body, inputs to publish (bit i: input i), maximum duration of the publish."""

    owner: str
    key: str
    body: bytes
    wanted: int
    open_s: float


@dataclass(frozen=True)
class Claim:
    """The state of a key: the id of its first input, and the inputs that the broker already has (bit i: input i)."""

    records: tuple[bytes, str]
    first_id: str
    accepted: int
    wanted: int
    done: bool
    number: int


class Keys:
    """The records of all keys. A request waits up to `deadline_s` for a concurrent one; keys expire after `life_s`."""

    def __init__(self, store: Store, waiter: Waiter, ids: TaskIds, *, deadline_s: float, life_s: int) -> None:
        self._store = store
        self._waiter = waiter
        self._ids = ids
        self._deadline_s = deadline_s
        self._life_s = life_s

    async def is_known(self, owner: str, key: str) -> bool:
        """Whether a post with this key is recorded. Writes nothing. Raises the store's Unavailable."""
        return bool(await self._store.call("EXISTS", *_records(owner, key)))

    async def claim(self, post: Post, new_id: str) -> Claim:
        """Claim the key for the body; waits until a concurrent request is settled or abandoned.

        Raises the 409 problem after the deadline, the 422 problem for another body, and the store's Unavailable.
        """
        records = _records(post.owner, post.key)
        command = self._command(post, records, new_id)
        kind, id_, accepted, number = await self._store.call(*command)
        if kind == "open" and not self._waiter.full:
            end_s = time.monotonic() + self._deadline_s
            with self._waiter.watch(self._full_id(id_, post.owner)) as settled:
                while kind == "open" and await set_within(settled, end_s - time.monotonic()):
                    kind, id_, accepted, number = await self._store.call(*command)
        if kind == "open":
            raise errors.request_open()
        if kind == "other":
            raise errors.key_reused()
        first_id = self._full_id(id_, post.owner) if id_ else new_id
        return Claim(records, first_id, int(accepted, 16), post.wanted, kind == "done", number)

    def settle(self, claim: Claim, accepted: int, *, refused: bool = False) -> None:
        """Record which inputs the broker has, without waiting. After a failure, the next request publishes again.

        `refused`: the broker certainly has none of them. If this was the key's first claim, its record is deleted.
        """
        done = f"{claim.wanted:x}" if claim.wanted & ~accepted == 0 else ""
        arguments = (claim.number, f"{accepted:x}", done, int(refused))
        self._store.later("EVAL", SETTLE, 3, *claim.records, states.channel(claim.first_id), *arguments)

    def _command(self, post: Post, records: tuple[bytes, str], new_id: str) -> tuple[Any, ...]:
        digest = blake2b(post.body, digest_size=16).digest()
        # by then the claiming process has its answers from Redis and from the broker, or is dead
        abandoned_ms = int((TIMEOUT_S + post.open_s) * 1000)
        uuid = bytes.fromhex(new_id[:36].replace("-", ""))
        arguments = (digest[:DIGEST_BYTES], uuid, abandoned_ms, self._life_s, f"{post.wanted:x}", digest.hex())
        return ("EVAL", CLAIM, len(records), *records, *arguments)

    def _full_id(self, id_: str, owner: str) -> str:
        """The id for a UUID; records of version 0.1 have the whole id."""
        return self._ids.of_uuid(id_, owner) if len(id_) == UUID_DIGITS else id_


def _records(owner: str, key: str) -> tuple[bytes, str]:
    """The Redis keys for a request's key: of this version, and of version 0.1."""
    # NUL separates the parts: a name is printable, and a key has visible ASCII characters
    of_client = blake2b(f"{owner}\0{key}".encode(), digest_size=16)
    return _RECORD + of_client.digest(), f"sluice:key:{of_client.hexdigest()}"
