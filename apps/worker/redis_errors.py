"""Distinguishes permanent refusals of a value by Redis from temporary ones.

    unreachable, loading, failing over, read-only, full    temporary: retried without limit
    value above Redis' size limit                          permanent: the task ends as FAILURE
    an error about the command itself                      permanent if it is repeated

For states of the whole server, Redis has own error codes (LOADING, BUSY, READONLY, OOM, MISCONF and others). It returns
ERR or WRONGTYPE for a command that it would refuse in any state. A proxy may also return ERR for an unreachable server,
so a single ERR is not conclusive.
"""

from redis import Redis
from redis.exceptions import ConnectionError, DataError, OutOfMemoryError, RedisError, ResponseError  # noqa: A004

from apps.contract import failures

# Successive command errors that count as permanent; three attempts take less than a second.
ATTEMPTS = 3
# Redis closes the connection on a value above proto-max-bulk-len, which looks like an outage.
BULK_LEN_DEFAULT_BYTES = 512 * 1024 * 1024
# A shorter value is refused only because Redis is full, and not because of a size limit.
LONG_BYTES = 16 * 1024


class NotStored(Exception):
    """Redis will never accept this value. `failure` is the result of the task."""

    def __init__(self, failure: dict[str, str]) -> None:
        super().__init__(failure["message"])
        self.failure = failure


def raise_if_final(exc: Exception, size_bytes: int, redis: Redis, refused: list[Exception]) -> None:
    """Raise NotStored if an error is permanent; return if storing the value may be retried.

    `refused` has the successive command errors so far. This function adds `exc` to it, or clears it.
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
    """Whether Redis or its client refused the command itself, and not because of the server's state."""
    if isinstance(exc, DataError):
        return True
    if type(exc) is not ResponseError:  # subclasses are error codes that the client knows
        return False
    code = str(exc).partition(" ")[0]
    return code == "WRONGTYPE" or not (code.isupper() and code.isalpha())  # the client cuts ERR off


def _limit(redis: Redis) -> tuple[int, str] | None:
    """The largest size of a value in Redis, and the setting that limits it. None if Redis does not answer."""
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
