"""Errors of Redis are either temporary, so that the worker waits, or final."""

from typing import Any

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import DataError, NoPermissionError, TimeoutError  # noqa: A004 - not the builtin one

from apps.worker.redis_errors import ATTEMPTS, NotStored, is_about_the_command, raise_if_final

OF_THE_SERVER = [
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
    "NOAUTH Authentication required.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "MOVED 3999 127.0.0.1:6381",
    "ERR max number of clients reached",
]
OF_THE_COMMAND = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
    "ERR value is not an integer or out of range",
    "ERR unknown command 'FOO'",
]


def error(text: str) -> Exception:
    return BaseParser.parse_error(text)  # type: ignore[no-any-return, no-untyped-call]


class Limits:
    """A Redis of which only the limits are read."""

    def __init__(self, maxmemory: int = 0, bulk: int | None = None) -> None:
        self._memory, self._bulk = {"maxmemory": maxmemory, "used_memory_startup": 1000}, bulk

    def info(self, _: str) -> dict[str, int]:
        return self._memory

    def config_get(self, _: str) -> dict[str, str]:
        if self._bulk is None:
            raise NoPermissionError("no permission")
        return {"proto-max-bulk-len": str(self._bulk)}


@pytest.mark.parametrize("text", OF_THE_SERVER)
def test_temporary_state_of_the_server_is_never_final(text: str) -> None:
    refused: list[Exception] = []
    for _ in range(10 * ATTEMPTS):
        raise_if_final(error(text), 100, Limits(), refused)  # type: ignore[arg-type]
    assert refused == []


@pytest.mark.parametrize("text", OF_THE_COMMAND)
def test_repeated_refusal_of_the_command_is_final(text: str) -> None:
    refused: list[Exception] = []
    for _ in range(ATTEMPTS - 1):
        raise_if_final(error(text), 100, Limits(), refused)  # type: ignore[arg-type]
    with pytest.raises(NotStored) as found:
        raise_if_final(error(text), 100, Limits(), refused)  # type: ignore[arg-type]
    assert found.value.failure["type"] == "ResultNotStored"


def test_value_that_the_client_cannot_send_is_an_error_of_the_command() -> None:
    assert is_about_the_command(DataError("Invalid input of type: 'NoneType'"))
    assert not is_about_the_command(TimeoutError("Timeout reading from socket"))


@pytest.mark.parametrize(
    ("size", "redis", "final"),
    [
        (20_000, Limits(maxmemory=15_000), True),
        (20_000, Limits(maxmemory=30_000), False),
        (20_000, Limits(bulk=19_999), True),
        (20_000, Limits(bulk=20_000), False),
        (600 * 2**20, Limits(), True),  # above the default limit, which the user may not read
        (100, Limits(maxmemory=1), False),  # such a small value is not the cause
    ],
)
def test_value_above_a_limit_of_redis_is_final_immediately(size: int, redis: Any, final: bool) -> None:
    if not final:
        raise_if_final(error(OF_THE_SERVER[6]), size, redis, [])
        return
    for exc in (error(OF_THE_SERVER[6]), ConnectionResetError()):
        with pytest.raises(NotStored, match=f"the result has {size} bytes"):
            raise_if_final(exc, size, redis, [])
