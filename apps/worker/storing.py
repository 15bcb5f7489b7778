"""Which refusals of Redis are final for a value, so that waiting for a better time cannot help.

    away, loading, failing over, read-only, full    the value is stored once that is over: tried again without limit
    more bytes than Redis takes                     never: the task ends as FAILURE
    an error about the command itself               the same, if it is repeated

Redis gives each state of the whole server a code of its own (LOADING, BUSY, READONLY, OOM, MISCONF and others), and ERR
or WRONGTYPE to a command that it would refuse in any state. A proxy may answer ERR for a server that is away, so a
single one proves nothing.
"""

from redis import Redis
from redis.exceptions import ConnectionError, DataError, OutOfMemoryError, RedisError, ResponseError  # noqa: A004

from apps.contract import failures

# The same error of a command so often in a row is about the value: three attempts take less than a second.
ATTEMPTS = 3
# Redis closes the connection on a value above proto-max-bulk-len, which looks like an outage.
BULK_LEN_DEFAULT_BYTES = 512 * 1024 * 1024
# A shorter value that does not fit meets a Redis that is full, and not a limit of values.
LONG_BYTES = 16 * 1024


class NotStored(Exception):
    """Redis will never take this value. `failure` is the result of its task."""

    def __init__(self, failure: dict[str, str]) -> None:
        super().__init__(failure["message"])
        self.failure = failure


def raise_if_final(exc: Exception, size_bytes: int, redis: Redis, refused: list[Exception]) -> None:
    """Return if a value that could not be stored may be stored later, and raise NotStored if it never can be.

    `refused` are the errors about the command in a row so far; this one is added.
    """
    if isinstance(exc, ConnectionError | OutOfMemoryError | OSError) and size_bytes > LONG_BYTES:
        limit = _limit(redis)
        if limit is not None and size_bytes > limit[0]:
            raise NotStored(failures.too_large_for_redis(size_bytes, *limit)) from exc
    if not is_about_the_command(exc):
        refused.clear()
        return
    refused.append(exc)
    if len(refused) >= ATTEMPTS:
        raise NotStored(failures.not_stored(exc)) from exc


def is_about_the_command(exc: Exception) -> bool:
    """Whether Redis, or its client, has refused this command, and not for the state that the server is in."""
    if isinstance(exc, DataError):
        return True
    if type(exc) is not ResponseError:  # its subclasses are the codes that the client knows
        return False
    code = str(exc).partition(" ")[0]
    return code == "WRONGTYPE" or not (code.isupper() and code.isalpha())  # the client cuts ERR off


def _limit(redis: Redis) -> tuple[int, str] | None:
    """The most bytes that Redis can take as one value, and the setting that says so. None if it does not answer."""
    try:
        memory = redis.info("memory")
    except (RedisError, OSError):
        return None
    try:
        longest = int(str(redis.config_get("proto-max-bulk-len")["proto-max-bulk-len"]))
    except (RedisError, OSError, KeyError, ValueError):  # a user may lack the permission
        longest = BULK_LEN_DEFAULT_BYTES
    limits = [(longest, "proto-max-bulk-len")]
    if memory["maxmemory"]:
        limits.append((memory["maxmemory"] - memory["used_memory_startup"], "maxmemory"))
    return min(limits)
