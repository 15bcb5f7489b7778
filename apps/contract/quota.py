"""How many tasks of a client wait or run: its counts in Redis, which the API raises and the scripts of `states` lower.

A client's counts are a hash: a field for each period of 2^20 ms (17.5 minutes), which counts the tasks whose ids were
made in it. The count of a period may be wrong for a while: an API that is killed has not reported its last second, a
Redis that was emptied knows no task, and then ends lower what nobody has raised. So a negative count means none, the
error stays within its period, and a period older than a record lives is deleted: no error lasts for longer.
"""

from typing import NamedTuple

# Bits of the milliseconds in an id that do not count: an id begins with the other 28, as seven hexadecimal digits.
PERIOD_BITS = 20


class Quota(NamedTuple):
    """What a client may have."""

    tasks_per_s: int
    open_tasks: int


def key(owner: object) -> str:
    """The Redis key of a client's counts."""
    return f"sluice:quota:{owner}"


def field(task_id: str) -> str:
    """The field that counts a task: the period in which its id was made."""
    return task_id[:7]


def lowered(key: str, field: str, life_s: str) -> str:
    """Lua that counts one open task less.

    -1 means that this script may have created the hash, so it sets the hash's life: the API sets it only at a renewal.
    """
    lower = f"redis.call('HINCRBY', {key}, {field}, -1)"
    return f"if {lower} == -1 then redis.call('EXPIRE', {key}, {life_s}) end"
