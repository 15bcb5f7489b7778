r"""States of a task, its record in Redis, and the four atomic scripts that write it.

    (no record) --begin--> STARTED --end--> SUCCESS | FAILURE | REVOKED
        ^ \__give_back____/                 (the worker does not understand the input: it needs another version)
        |  \______________________end____________/        (dead letters that never ran)
        \__________________cancel_____________________________/

A record is one string under `key(id)`; a task without one is PENDING. Worker, recorder and API write records only with
these scripts. The script that begins or ends a task also publishes the change: a start on `begun_channel(id)`, an end
on `channel(id)`. A small result is published with its SUCCESS: waiters then need not read the record.

    byte 1      S, F, V: SUCCESS, FAILURE, REVOKED. R: STARTED. C: STARTED, and a client has requested its cancellation
    byte 2      offset of the rest: a later version may insert fields before it, which this version skips
    byte 3      number of starts, 255 at most
    4 to 9      time of the last start, in ms since the epoch; 0 if it was never started
    10 to 15    time of the end, in ms since the epoch
    the rest    final states: the result as JSON; other states: the publish id that has claimed the task

One string takes half the memory of a hash with the same fields, whatever the result's size: Redis stores a hash with a
value above 64 bytes as a hash table. `python -m bench.record_bytes` measures it.

A result is kept for `result_ttl_s` after the task's end. Then only a member of 8 bytes remains, in a set of the ended
tasks whose ids were created in the same 4 seconds (`ended`). The set is kept until its ids are older than
`record_ttl_s`, which is longer than a message can wait. An older id without a record is forgotten (410); a younger id
that is not in the set is PENDING. A key for each ended id would take ten times the memory.
"""

import json
from binascii import unhexlify
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from apps.contract import quota, results, text
from apps.contract.ids import ID_CHARS

FinalState = Literal["SUCCESS", "FAILURE", "REVOKED"]
State = Literal["PENDING", "STARTED", FinalState]
FINAL: frozenset[str] = frozenset(get_args(FinalState))
# The first byte of a record in a final state.
_LETTERS: dict[str, FinalState] = {"S": "SUCCESS", "F": "FAILURE", "V": "REVOKED"}


# Short prefixes: with 16 bytes of the id, a key fits into 24 bytes of the allocator.
_RECORD, _ENDED = b"sl:t:", b"sl:e:"
# Placeholder key for ids that the API did not create; never written. A script's key must not be empty: Redis checks the
# caller's permission for each.
NO_SET = _ENDED
# Ids that were created in the same 4 seconds share a set: its key omits the low 12 of the 48 bits of their time. Redis
# packs sets of up to 512 integers: above 125 tasks per second a member takes 70 bytes instead of 8, unless
# `set-max-intset-entries` is raised.
_SLICES = [bytes([byte & 0xF0]) for byte in range(256)]
_ID_BYTES = 24
# Additional life of a set: the clocks of the APIs that created the ids may differ from Redis' clock.
CLOCKS_S = 2 * 3600


class RecordKeys(NamedTuple):
    """The keys of a task's record, and of the set that shows its end after the record has expired."""

    record: bytes
    earlier: str
    """The key of a record that version 0.1 wrote."""
    ended: bytes
    """The key of the set of ended ids; NO_SET for an id that the API did not create, which no client can query."""
    member: int
    """The id's member of this set: its keyed tag as an integer."""
    created_s: float
    period: str
    """The field that counts the task as open."""

    def script_keys(self, task_id: str, owner: object, *other_channel: str) -> list[bytes | str]:
        """The KEYS of the four scripts."""
        return [self.record, self.earlier, self.ended, channel(task_id), quota.key(owner), *other_channel]

    def script_arguments(self, now_s: float, result_ttl_s: int, record_ttl_s: int) -> list[Any]:
        """The first ARGV of each of the four scripts."""
        return [
            int(now_s * 1000).to_bytes(6),
            result_ttl_s,
            self.member,
            int(self.created_s) + record_ttl_s + CLOCKS_S,
            self.period,
            record_ttl_s,
        ]


@lru_cache(maxsize=1024)  # a worker needs it at the begin and at the end of a task
def record_keys(task_id: str) -> RecordKeys:
    """The keys for a task. In a message, any text may be an id."""
    try:
        raw = unhexlify(task_id.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != _ID_BYTES or len(task_id) != ID_CHARS:
        other = _RECORD + task_id.encode(errors="surrogatepass")
        return RecordKeys(other, f"sluice:task:{task_id}", NO_SET, 0, 0.0, quota.field(task_id))
    return RecordKeys(
        _RECORD + raw[:16],
        f"sluice:task:{task_id}",
        _ENDED + raw[:4] + _SLICES[raw[4]],
        int.from_bytes(raw[16:], signed=True),
        int.from_bytes(raw[:6]) / 1000,
        quota.field(task_id),
    )


def key(task_id: str) -> bytes:
    """The Redis key of a task's record."""
    return record_keys(task_id).record


def channel(task_id: str) -> str:
    """The Redis channel on which a task's end is published, and the settlement of its Idempotency-Key."""
    return f"sluice:state:{task_id}"


def begun_channel(task_id: str) -> str:
    """The Redis channel on which a task's start is published. It is separate, as most waiters need only the end."""
    return f"sluice:begun:{task_id}"


def requeued_key(task_id: str) -> str:
    """The Redis key of a hash whose only field, `requeued_as`, is the new id of a requeued task."""
    return f"sluice:requeued:{task_id}"


# Publishes the id of a running task that was cancelled to every process that runs tasks.
CANCEL_CHANNEL = "sluice:cancel"

# A longer result is not published: every API process with a waiting client would receive all of it.
PUBLISHED_BYTES_MAX = 4096
# A longer result is not read with the rest of its record: 200 records, one batch, then have at most 3 MiB, which take
# a few milliseconds.
SMALL_BYTES_MAX = 16 * 1024
# Limits of a FAILURE: the exception's class name, and the default limit of its message. Most messages have a few
# hundred characters; those of pydantic and of databases have thousands.
TYPE_MAX_CHARS = 255
FAILURE_MESSAGE_MAX_CHARS = 4096
# Below the minimum there is no room for the note about omitted text; above the maximum it is a result, not a message.
FAILURE_MESSAGE_BOUNDS_CHARS = (100, 1_000_000)

UNREADABLE = "RecordUnreadable"
"""The type of a FAILURE whose record was overwritten by another program."""
UNREADABLE_META = json.dumps({"type": UNREADABLE, "message": "the value stored as its record is not a record"})

# Lets a script run while Redis is above maxmemory, when it refuses commands that need memory (Redis 7.0).
ALSO_WHEN_FULL = "#!lua flags=allow-oom\n"


_LOWERED = quota.lowered("KEYS[5]", "ARGV[5]", "ARGV[6]")


def _finish(letter: str, meta: str) -> str:
    """Lua that makes the record final, adds the id to the ended ones, and deletes the record of version 0.1.

    It also decrements the owner's count of open tasks.
    """
    return rf"""
redis.call('SET', KEYS[1], {letter} .. '\015' .. started .. ARGV[1] .. {meta}, 'EX', ARGV[2])
if KEYS[3] ~= '{NO_SET.decode()}' then
  redis.pcall('SADD', KEYS[3], ARGV[3])
  redis.pcall('EXPIREAT', KEYS[3], ARGV[4])
end
if adopted then redis.call('DEL', KEYS[2]) end
{_LOWERED}"""


# The common first part of the scripts. KEYS: record, record of version 0.1, set of ended ids, channel, the owner's
# counts (apps/contract/quota.py); BEGIN and CANCEL have one more channel. ARGV: now (6 bytes, ms), life of a result
# (s), member of the set, expiry of the set (s since the epoch), the task's field in the counts, life of the counts (s).
# `letter` is the first byte of the record, nil if there is no record. `started` is the number of starts and the time of
# the last one. A value that is not a record makes the task a FAILURE.
_FOUND = rf"""
local record, adopted = redis.pcall('GET', KEYS[1]), false
if not record and redis.call('EXISTS', KEYS[2]) == 1 then
  adopted = true
  local hash = redis.pcall('HMGET', KEYS[2], 'state', 'publish', 'cancel', 'tries', 'started_s')
  local letters = {{{", ".join(f"{state} = '{letter}'" for letter, state in _LETTERS.items())}}}
  letters.STARTED = hash[3] and 'C' or 'R'
  local tries, started_ms = math.min(tonumber(hash[4] or 0), 255), math.floor(tonumber(hash[5] or 0) * 1000)
  record = (letters[hash[1]] or '?') .. '\015' .. struct.pack('>BI6I6', tries, started_ms, 0) .. (hash[2] or '')
end
local letter, started = nil, '\000\000\000\000\000\000\000'
if record then
  letter = record.err and '?' or string.sub(record, 1, 1)
  if #record < 15 or not string.find('SFVRC', letter, 1, true) then
    redis.call('PERSIST', KEYS[1]) -- as for a cancelled task in BEGIN: written also while Redis is full
    {_finish("'F'", f"'{UNREADABLE_META}'")}
    redis.call('PUBLISH', KEYS[4], 'FAILURE')
    return 'unreadable'
  end
  started = string.sub(record, 3, 9)
end
"""
_HAS_ENDED = f"(KEYS[3] ~= '{NO_SET.decode()}' and redis.pcall('SISMEMBER', KEYS[3], ARGV[3]) == 1)"
_CLAIMED = "if string.sub(record, string.byte(record, 2) + 1) ~= ARGV[7] then return 'claimed' end"

# KEYS[6]: begun channel. ARGV from 7: publish id, life of the record of a running task (s), 1 if the id is so old that
# its result may have expired.
# Returns "run", or the reason not to run: "final", "claimed" (by another publish of the same id), "cancelled" (during
# an earlier try, or while waiting for a retry) or "unreadable" (it is a FAILURE now).
BEGIN = rf"""{_FOUND}
local tries = 0
if letter == 'R' or letter == 'C' then
  {_CLAIMED}
  if letter == 'C' then
    redis.call('PERSIST', KEYS[1]) -- takes no memory: Redis then lets the script write also while it is full
    {_finish("'V'", "'null'")}
    redis.call('PUBLISH', KEYS[4], 'REVOKED')
    return 'cancelled'
  end
  tries = string.byte(started)
elseif letter or (ARGV[9] == '1' and {_HAS_ENDED}) then
  return 'final'
end
tries = string.char(math.min(tries + 1, 255))
redis.call('SET', KEYS[1], 'R\015' .. tries .. ARGV[1] .. '\000\000\000\000\000\000' .. ARGV[7], 'EX', ARGV[8])
if adopted then redis.call('DEL', KEYS[2]) end
redis.call('PUBLISH', KEYS[6], 'STARTED')
return 'run'
"""

# ARGV from 7: publish id, state, meta (JSON).
# Returns "stored", or the reason not to store: "final" (the first end stands), "claimed" (another publish of the id has
# begun) or "unreadable" (it is a FAILURE now).
# Publishes the state; for a SUCCESS also a space and the meta, if it has at most PUBLISHED_BYTES_MAX.
END = rf"""{_FOUND}
if letter == 'R' or letter == 'C' then
  {_CLAIMED}
elseif letter or {_HAS_ENDED} then
  return 'final'
end
local published = ARGV[8]
{_finish("(published == 'REVOKED' and 'V' or string.sub(published, 1, 1))", "ARGV[9]")}
if published == 'SUCCESS' and #ARGV[9] <= {PUBLISHED_BYTES_MAX} then published = published .. ' ' .. ARGV[9] end
redis.call('PUBLISH', KEYS[4], published)
return 'stored'
"""
# For FAILURE and REVOKED, which are small: limits and cancellations also end tasks while Redis is full. The memory used
# above maxmemory is bounded by the number of tasks in the broker.
END_WHEN_FULL = ALSO_WHEN_FULL + END

# A worker that does not understand the input returns the task: it is PENDING again, or STARTED if it ran before.
# ARGV[7]: publish id.
# Returns "returned", "cancelled" (in the meantime; it is REVOKED now), "claimed" (another publish of the id has begun)
# or "unreadable" (it is a FAILURE now).
GIVE_BACK = rf"""{ALSO_WHEN_FULL}{_FOUND}
if adopted or not (letter == 'R' or letter == 'C') then return 'claimed' end
{_CLAIMED}
if letter == 'C' then
  {_finish("'V'", "'null'")}
  redis.call('PUBLISH', KEYS[4], 'REVOKED')
  return 'cancelled'
end
local tries = string.byte(started)
if tries > 1 then redis.call('SETRANGE', KEYS[1], 2, string.char(tries - 1)) else redis.call('DEL', KEYS[1]) end
return 'returned'
"""

# KEYS[6]: CANCEL_CHANNEL. ARGV from 7: id, life of the record (s).
# Returns the previous state: a PENDING task is REVOKED now, a STARTED one will be cancelled, a final state stands.
# A task without a record is REVOKED in the form of version 0.1, whose workers may receive it during a rolling update.
CANCEL = f"""{ALSO_WHEN_FULL}{_FOUND}
if not letter then
  redis.call('HSET', KEYS[2], 'state', 'REVOKED')
  redis.call('EXPIRE', KEYS[2], ARGV[8])
  redis.call('PUBLISH', KEYS[4], 'REVOKED')
  {_LOWERED}
  return 'PENDING'
end
if letter == 'R' or letter == 'C' then
  if adopted then redis.call('HSET', KEYS[2], 'cancel', 1) else redis.call('SETRANGE', KEYS[1], 0, 'C') end
  redis.call('PUBLISH', KEYS[6], ARGV[7])
  return 'STARTED'
end
return ({{{", ".join(f"{letter} = '{state}'" for letter, state in _LETTERS.items())}}})[letter]
"""

# KEYS: record, record of version 0.1, requeued key.
# Returns the letter or the state, the number of tries, the time of the start (ms), the size of the meta in bytes, the
# meta if it is small, its offset in the record (0: it is a field of a record of version 0.1), and the new id of a
# FAILURE that was requeued. Returns an empty list if there is no record.
READ = f"""
local record = redis.pcall('GETRANGE', KEYS[1], 0, {SMALL_BYTES_MAX + 255})
local letter = record.err and '?' or string.sub(record, 1, 1)
local answer = {{letter, 0, 0, 0, false, 0, false}}
if letter == '' or letter == 'R' or letter == 'C' then
  local hash = redis.pcall('HMGET', KEYS[2], 'state', 'tries', 'started_s')
  local state = hash.err and '?' or hash[1]
  -- the recorder of version 0.1 may have ended what a worker of this version has begun
  if state and (letter == '' or state ~= 'STARTED') then
    local bytes = state == '?' and 0 or redis.call('HSTRLEN', KEYS[2], 'meta')
    local meta = bytes > 0 and bytes <= {SMALL_BYTES_MAX} and redis.call('HGET', KEYS[2], 'meta')
    answer = {{state, tonumber(hash[2] or 0), math.floor(tonumber(hash[3] or 0) * 1000), bytes, meta, 0, false}}
  elseif letter == '' then
    return {{}}
  end
end
if answer[1] == letter and letter ~= '?' then
  if not string.match(letter, '[SFVRC]') or #record < 15 then return {{'?', 0, 0, 0, false, 0, false}} end
  local start, bytes = string.byte(record, 2), 0
  answer[2], answer[3], answer[6] = string.byte(record, 3), struct.unpack('>I6', record, 4), start
  if letter ~= 'R' and letter ~= 'C' then bytes = redis.call('STRLEN', KEYS[1]) - start end
  answer[4] = bytes
  if bytes > 0 and bytes <= {SMALL_BYTES_MAX} then answer[5] = string.sub(record, start + 1) end
end
if answer[1] == 'F' or answer[1] == 'FAILURE' then answer[7] = redis.call('HGET', KEYS[3], 'requeued_as') end
return answer
"""

_STATES: dict[str, State] = {**_LETTERS, "R": "STARTED", "C": "STARTED"}


@dataclass(frozen=True)
class Record:
    """A task's record as read from Redis. `meta` is its result as JSON; of a large result only the size is known."""

    state: State = "PENDING"
    meta: str = "null"
    large_bytes: int = 0
    tries: int = 0
    started_s: float | None = None
    requeued_as: str | None = None
    large_from: int = 0
    """The offset of a large result in its record; 0: it is the field `meta` of a record that version 0.1 wrote."""

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def result(self) -> Any:
        """The result, decoded from `meta`."""
        return json.loads(self.meta)


def decode(answer: list[Any]) -> Record:
    """Decode the answer of READ; an empty answer means PENDING."""
    if not answer:
        return Record()
    letter, tries, started_ms, meta_bytes, meta, large_from, requeued_as = answer
    if letter == "?":
        return Record("FAILURE", UNREADABLE_META)
    return Record(
        _STATES.get(letter, letter),
        "null" if meta is None else results.readable(meta),
        0 if meta is not None else meta_bytes,
        tries,
        started_ms / 1000 if started_ms else None,
        requeued_as,
        0 if meta is not None else large_from * bool(meta_bytes),
    )


def published_end(message: str) -> Record | None:
    """The end in a message on `channel(id)`: only state and result. None if the record must be read."""
    state, _, meta = message.partition(" ")
    if state != "SUCCESS" or not meta:  # the id of a requeue is only in Redis
        return None
    return Record("SUCCESS", results.readable(meta))


def status(task_id: str, state: State, result: Any = None) -> dict[str, Any]:
    """The status of a task in an answer to a client."""
    return {"task_id": task_id, "task_status": state, "task_result": result}


def failure(type_: str, message: str, max_chars: int = FAILURE_MESSAGE_MAX_CHARS) -> dict[str, str]:
    """The result of a FAILURE: type and message, as text that can be stored and sent."""
    return {"type": text.clean(type_, TYPE_MAX_CHARS), "message": text.clean(message, max_chars)}
