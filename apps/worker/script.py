"""A Lua script, run by its hash."""

import hashlib
from typing import Any

from hiredis import pack_command
from redis.connection import AbstractConnection
from redis.exceptions import NoScriptError


class Script:
    """A script that can be run on any connection."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def run(self, connection: AbstractConnection, keys: list[bytes | str], arguments: list[object]) -> str:
        """Run the script. Raises RedisError; the caller then closes the connection, and its next use reopens it."""
        operands = (len(keys), *keys, *arguments)
        try:
            return _answer(connection, "EVALSHA", self._sha, *operands)
        except NoScriptError:  # Redis was restarted
            return _answer(connection, "EVAL", self._source, *operands)


def _answer(connection: AbstractConnection, *command: Any) -> str:
    # like `send_command`, without its checks of each operand
    connection.send_packed_command([pack_command(command)])  # type: ignore[no-untyped-call]
    return str(connection.read_response())
