r"""States of a task, its record in Redis, and the three atomic scripts that write it.

    (no record) --begin--> STARTED --end--> SUCCESS | FAILURE | REVOKED
        |  \______________________end____________/        (dead letters that never ran)
        \__________________cancel_____________________________/

A record is a Redis hash under `key(id)`; a task without one is PENDING. The scripts are the only writers, used
by worker, recorder and API alike. Each change is published in the same round trip: a beginning on `begun_channel(id)`,
an end on `channel(id)`; a SUCCESS with its result, if that is small, so that who waits need not ask for it.

A record lives for the same time after each change, and that time is longer than a message can wait: what is
older and has no record is forgotten; what is younger and has none is PENDING.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from apps.contract import quota, results, text

State = Literal["PENDING", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


def key(task_id: str) -> str:
    """The Redis key of a task's record."""
    return f"sluice:task:{task_id}"


def channel(task_id: str) -> str:
    """The Redis channel on which a task's end is told, and that its key is settled."""
    return f"sluice:state:{task_id}"


def begun_channel(task_id: str) -> str:
    """The Redis channel on which it is told that a task has begun: most who wait want its end alone."""
    return f"sluice:begun:{task_id}"


def requeued_key(task_id: str) -> str:
    """The Redis key of a hash whose one field, `requeued_as`, is the new id of a parked task that was sent again."""
    return f"sluice:requeued:{task_id}"


# A running task that is cancelled is told of here: its id, to every process that runs tasks.
CANCEL_CHANNEL = "sluice:cancel"

# A longer result is not in the message: each API process that has a client waiting would be sent all of it.
TOLD_BYTES_MAX = 4096
# A longer result is not read with the rest of a record: the 200 records of one batch then have 3 MiB at most, which
# takes a few milliseconds.
SMALL_BYTES_MAX = 16 * 1024
# Of a FAILURE: the name of an exception's class, and its message unless a setting says otherwise. Most messages have a
# few hundred characters; pydantic's and a database's have thousands.
TYPE_MAX_CHARS = 255
FAILURE_MESSAGE_MAX_CHARS = 4096
# Shorter, a message has no room for what was left out; longer, it is a result rather than a message.
FAILURE_MESSAGE_BOUNDS_CHARS = (100, 1_000_000)

# KEYS: record, channel, begun channel, the owner's quota. ARGV: publish id, worker, now (s), life of the record (s),
# the task's field in the quota.
# Answers "run", or why not: "final", "claimed" (by another publish of the same id) or "cancelled" (while it ran
# before, or waited for its retry).
BEGIN = f"""
local record = redis.call('HMGET', KEYS[1], 'state', 'publish', 'cancel')
local state, publish, cancel = record[1], record[2], record[3]
if state and state ~= 'STARTED' then return 'final' end
if publish and publish ~= ARGV[1] then return 'claimed' end
if cancel then
  redis.call('HSET', KEYS[1], 'state', 'REVOKED', 'ended_s', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('PUBLISH', KEYS[2], 'REVOKED')
  {quota.lowered("KEYS[4]", "ARGV[5]", "ARGV[4]")}
  return 'cancelled'
end
redis.call('HSET', KEYS[1], 'state', 'STARTED', 'publish', ARGV[1], 'worker', ARGV[2], 'started_s', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'tries', 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', KEYS[3], 'STARTED')
return 'run'
"""

# KEYS: record, channel, the owner's quota. ARGV: publish id, state, meta (JSON), now (s), life of the record (s), the
# task's field in the quota.
# Answers "stored", or why not: "final" (the first end stands) or "claimed" (another publish of the id has begun).
# Tells the state; of a SUCCESS, after a space, the meta too, up to TOLD_BYTES_MAX.
END = f"""
local record = redis.call('HMGET', KEYS[1], 'state', 'publish')
local state, publish = record[1], record[2]
if state and state ~= 'STARTED' then return 'final' end
if publish and publish ~= ARGV[1] then return 'claimed' end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'publish', ARGV[1], 'meta', ARGV[3], 'ended_s', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
local told = ARGV[2]
if told == 'SUCCESS' and #ARGV[3] <= {TOLD_BYTES_MAX} then told = told .. ' ' .. ARGV[3] end
redis.call('PUBLISH', KEYS[2], told)
{quota.lowered("KEYS[3]", "ARGV[6]", "ARGV[5]")}
return 'stored'
"""

# KEYS: record, channel, CANCEL_CHANNEL, the owner's quota. ARGV: id, now (s), life of the record (s), the task's field
# in the quota.
# Answers the state that it found: PENDING is REVOKED now, STARTED is asked to end, a final one stands.
CANCEL = f"""
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  redis.call('HSET', KEYS[1], 'state', 'REVOKED', 'ended_s', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  redis.call('PUBLISH', KEYS[2], 'REVOKED')
  {quota.lowered("KEYS[4]", "ARGV[4]", "ARGV[3]")}
  return 'PENDING'
end
if state == 'STARTED' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
  redis.call('PUBLISH', KEYS[3], ARGV[1])
end
return state
"""


# KEYS: record, its requeued key.
# Answers the state, the tries, when it started (s), the bytes of the meta, the meta if it is small, and the new id of a
# FAILURE that was sent again; nothing where there is no record.
READ = f"""
local record = redis.call('HMGET', KEYS[1], 'state', 'tries', 'started_s')
if not record[1] then return {{}} end
local bytes, meta, requeued = redis.call('HSTRLEN', KEYS[1], 'meta'), false, false
if bytes > 0 and bytes <= {SMALL_BYTES_MAX} then meta = redis.call('HGET', KEYS[1], 'meta') end
if record[1] == 'FAILURE' then requeued = redis.call('HGET', KEYS[2], 'requeued_as') end
return {{record[1], record[2], record[3], bytes, meta, requeued}}
"""


@dataclass(frozen=True)
class Record:
    """A task's record as read from Redis. `meta` is its result as JSON; a large one has only its size here."""

    state: State = "PENDING"
    meta: str = "null"
    large_bytes: int = 0
    tries: int = 0
    started_s: float | None = None
    requeued_as: str | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def result(self) -> Any:
        """The result that `meta` is."""
        return json.loads(self.meta)


def decode(answer: list[Any]) -> Record:
    """The record that READ has answered; an empty answer means PENDING."""
    if not answer:
        return Record()
    state, tries, started_s, meta_bytes, meta, requeued_as = answer
    return Record(
        state,
        "null" if meta is None else results.readable(meta),
        0 if meta is not None else meta_bytes,
        int(tries or 0),
        None if started_s is None else float(started_s),
        requeued_as,
    )


def told(message: str) -> Record | None:
    """The end that a message on `channel(id)` tells: state and result alone. None where the record must be read."""
    state, _, meta = message.partition(" ")
    if state != "SUCCESS" or not meta:  # what was requeued after a FAILURE stands elsewhere
        return None
    return Record("SUCCESS", results.readable(meta))


def failure(type_: str, message: str, max_chars: int = FAILURE_MESSAGE_MAX_CHARS) -> dict[str, str]:
    """The result of a task that ended FAILURE, as text that can be stored and sent."""
    return {"type": text.clean(type_, TYPE_MAX_CHARS), "message": text.clean(message, max_chars)}
