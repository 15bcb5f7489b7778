"""Redis's users as data, and as the lines of an ACL file: what each part may run, on which keys and channels.

A part that runs a new command, or uses a new key or channel, needs it in USERS; the matrix in
tests/integration/test_rights.py has an entry for each. `make secrets` brings a changed table into a cluster, before the
release that needs it.

What Redis cannot separate: a script runs with its caller's rights, so whoever may run EVAL needs the commands inside it
too, and Redis asks for read and write on each key that a script names. So the API could write a task's record by hand.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from apps.contract import states

RECORDS = ("sl:t:*", "sluice:task:*")
"""Today's, and those of version 0.1, whose parts write them in a rolling update."""
ENDED = "sl:e:*"
IDEMPOTENCY_KEYS = ("sl:k:*", "sluice:key:*")
"""Today's, and those of version 0.1."""
REQUEUED = states.requeued_key("*")
# What clients may have, and have (apps/api/quotas.py).
QUOTAS = "sluice:quota:*"
REPLICAS = ("sluice:replicas", "sluice:reports:*")
ENDS = states.channel("*")
BEGINNINGS = states.begun_channel("*")
# Scripts name the channels that they publish on among their keys: Redis then asks for the right to a key of that name.
TOLD_BY_API = (ENDS, states.CANCEL_CHANNEL)
TOLD_BY_WORKER = (ENDS, BEGINNINGS)
# the API is always subscribed to something (apps/api/waiter.py)
IDLE = "sluice:idle"

# Clients ask on their own whether a connection is alive. They also send CLIENT SETINFO, and do without it where it is
# refused: Redis 7.0 would not start on a rule with a command that it does not know.
ALIVE = ("ping",)
SCRIPTS = ("eval", "evalsha")
# inside the scripts that begin, end and cancel tasks, on records of today and of version 0.1 (apps/contract/states.py)
WRITES = (
    "get", "set", "del", "exists", "sadd", "sismember", "expireat", "hmget", "hset", "hincrby", "expire", "persist",
)  # fmt: skip
READS = ("getrange", "strlen", "hstrlen", "hget")
CHANNELS = ("publish", "subscribe", "unsubscribe")


class RedisUser(NamedTuple):
    """What a user may do; the patterns of keys and channels are Redis's own globs."""

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
    # It asks for the most bytes of a value, and for maxmemory (apps/worker/storing.py). `config|get` also shows a
    # password, `requirepass`: that of DEFAULT.
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

# The user of a client that names none; no part has its password. The probes of the chart do, and only ask whether Redis
# is alive. Redis itself writes as this user when it reads its append-only file at a start: where it lacks a right to
# what a script has written, Redis leaves that out of the data, and starts.
DEFAULT = "default"
PROBE = RedisUser((*ALIVE, "@write"), ("*",))
# For people, as in RabbitMQ: no part of the system has its password.
ADMIN = "admin"

NAMES = (DEFAULT, *USERS, ADMIN)
"""Everyone who has a password."""


def acl(passwords: Mapping[str, str]) -> Iterator[str]:
    """The lines of an ACL file, or of redis.conf; `passwords` by the names in NAMES.

    They are there as hashes, but for the one of DEFAULT: the probes of the chart read it in the file.
    """
    yield _line(DEFAULT, f">{passwords[DEFAULT]}", PROBE)
    for name, user in USERS.items():
        yield _line(name, f"#{hashlib.sha256(passwords[name].encode()).hexdigest()}", user)
    yield f"user {ADMIN} reset on #{hashlib.sha256(passwords[ADMIN].encode()).hexdigest()} ~* &* +@all"


def _line(name: str, password: str, user: RedisUser) -> str:
    rules = [f"~{pattern}" for pattern in user.keys]
    rules += [f"&{pattern}" for pattern in user.channels]
    rules += [f"+{command}" for command in user.commands]
    # `reset` first: it takes away what Redis gives to the default user, and to new users of channels
    return " ".join((f"user {name}", "reset", "on", password, *rules))
