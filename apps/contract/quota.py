"""Counts of a client's open (waiting or running) tasks in Redis.

The API increments the counts, and the scripts of `states` decrement them.

The counts of a client are a hash with a field per period of 2^20 ms (17.5 minutes): the number of open tasks whose ids
were created in this period. A count can be wrong: a killed API has not reported its last second, and after Redis has
lost its data, tasks decrement counts that were never incremented. Therefore a negative count is read as 0, an error
affects only one period, and periods older than the life of a record are deleted, which bounds the life of an error.
"""

from typing import NamedTuple

# Low bits of an id's milliseconds that the period ignores. The other 28 are the id's first seven hexadecimal digits.
PERIOD_BITS = 20


class Quota(NamedTuple):
    """The limits of a client."""

    tasks_per_s: int
    open_tasks: int


def key(owner: object) -> str:
    """The Redis key of a client's counts."""
    return f"sluice:quota:{owner}"


def field(task_id: str) -> str:
    """The field that counts a task: the period in which its id was created."""
    return task_id[:7]


def lowered(key: str, field: str, life_s: str) -> str:
    """Lua that decrements the count of open tasks.

    A result of -1 means that HINCRBY may have created the hash. The script then sets the hash's time to live, which the
    API sets only when it renews a count.
    """
    lower = f"redis.call('HINCRBY', {key}, {field}, -1)"
    return f"if {lower} == -1 then redis.call('EXPIRE', {key}, {life_s}) end"
