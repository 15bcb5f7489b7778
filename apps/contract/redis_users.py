"""Redis users as data and as lines of an ACL file: the commands, keys and channels that each component may use.

Add every new command, key or channel of a component to USERS, and to the matrix in tests/integration/test_rights.py.
Run `make secrets` to apply a changed table to a cluster, before the release that needs it.

Limit of Redis: a script runs with its caller's permissions, so a user of EVAL also needs the commands inside the
script, and read and write permission on every key that it names. The API could therefore write records directly.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from apps.contract import states

RECORDS = ("sl:t:*", "sluice:task:*")
"""Of this version, and of version 0.1, whose processes write them during a rolling update."""
ENDED = "sl:e:*"
IDEMPOTENCY_KEYS = ("sl:k:*", "sluice:key:*")
"""Of this version, and of version 0.1."""
REQUEUED = states.requeued_key("*")
# Counts of open tasks (apps/api/quotas.py).
QUOTAS = "sluice:quota:*"
REPLICAS = ("sluice:replicas", "sluice:reports:*")
ENDS = states.channel("*")
BEGINNINGS = states.begun_channel("*")
# Scripts pass their channels as keys, so the user needs permission for keys of these names too.
TOLD_BY_API = (ENDS, states.CANCEL_CHANNEL)
TOLD_BY_WORKER = (ENDS, BEGINNINGS)
# the API is always subscribed to at least this channel (apps/api/waiter.py)
IDLE = "sluice:idle"

# redis-py checks connections with PING. It also sends CLIENT SETINFO and tolerates its refusal: Redis 7.0 does not
# start with a rule for a command that it does not know.
ALIVE = ("ping",)
SCRIPTS = ("eval", "evalsha")
# in the scripts that begin, end and cancel tasks (apps/contract/states.py), on records of version 0.1 too
WRITES = (
    "get", "set", "del", "exists", "sadd", "sismember", "expireat", "hmget", "hset", "hincrby", "expire", "persist",
)  # fmt: skip
READS = ("getrange", "strlen", "hstrlen", "hget")
CHANNELS = ("publish", "subscribe", "unsubscribe")


class RedisUser(NamedTuple):
    """The permissions of a user; keys and channels are Redis glob patterns."""

    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


USERS: Mapping[str, RedisUser] = {
    "api": RedisUser(
        (
            *ALIVE, *SCRIPTS, *CHANNELS, *WRITES, *READS, "setrange", "time", "info",
            "hgetall", "hdel", "zadd", "zremrangebyscore", "zcard",
        ),
        (*RECORDS, ENDED, REQUEUED, *IDEMPOTENCY_KEYS, QUOTAS, *REPLICAS, *TOLD_BY_API),
        (*TOLD_BY_API, BEGINNINGS, IDLE),
    ),
    # `config|get` reads the largest size of a value, and maxmemory (apps/worker/redis_errors.py). It also reveals
    # `requirepass`, the password of DEFAULT.
    "worker": RedisUser(
        (*ALIVE, *SCRIPTS, *CHANNELS, *WRITES, "getrange", "setrange", "hexists", "info", "config|get"),
        (*RECORDS, ENDED, QUOTAS, *TOLD_BY_WORKER),
        (*TOLD_BY_WORKER, states.CANCEL_CHANNEL),
    ),
    "recorder": RedisUser(
        (*ALIVE, *SCRIPTS, "script|load", *WRITES, *READS, "publish"),
        (*RECORDS, ENDED, REQUEUED, QUOTAS, ENDS),
        (ENDS,),
    ),
    # apps/worker/dead_letters.py
    "tool": RedisUser((*ALIVE, "hsetnx", "hincrby", "expire", "hget"), (REQUEUED, QUOTAS)),
}  # fmt: skip

# The user of clients that name none. Only the chart's probes have its password, and they only check whether Redis is
# alive. Redis replays its append-only file as this user: if it lacks permission for a write of a script, Redis starts
# without this write.
DEFAULT = "default"
PROBE = RedisUser((*ALIVE, "@write"), ("*",))
# For people, as in RabbitMQ: no component has its password.
ADMIN = "admin"

NAMES = (DEFAULT, *USERS, ADMIN)
"""All users with a password."""


def acl(passwords: Mapping[str, str]) -> Iterator[str]:
    """The lines of an ACL file, or of redis.conf; `passwords` by the names in NAMES.

    Passwords are hashed, except that of DEFAULT: the chart's probes read it from the file.
    """
    yield _line(DEFAULT, f">{passwords[DEFAULT]}", PROBE)
    for name, user in USERS.items():
        yield _line(name, f"#{hashlib.sha256(passwords[name].encode()).hexdigest()}", user)
    yield f"user {ADMIN} reset on #{hashlib.sha256(passwords[ADMIN].encode()).hexdigest()} ~* &* +@all"


def _line(name: str, password: str, user: RedisUser) -> str:
    rules = [f"~{pattern}" for pattern in user.keys]
    rules += [f"&{pattern}" for pattern in user.channels]
    rules += [f"+{command}" for command in user.commands]
    # `reset` first: it removes the initial permissions of the default user, and of new users for channels
    return " ".join((f"user {name}", "reset", "on", password, *rules))
