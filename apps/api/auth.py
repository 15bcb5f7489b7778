"""Who asks: a client is known by its bearer key, and its tasks by the client's name."""

import hmac
from collections.abc import Mapping

from pydantic import SecretStr

from apps.api import errors

# Owner of every task where authentication is switched off.
ANYONE = "anyone"


class Clients:
    """The bearer keys of the environment; none at all means that authentication was disabled aloud."""

    def __init__(self, keys: Mapping[str, SecretStr]) -> None:
        self._keys = [(name, key.get_secret_value().encode()) for name, key in keys.items()]

    def identify(self, authorization: str | None) -> str:
        """The client's name. Raises the 401 problem.

        Each key is compared, and each in constant time: how long the answer takes tells nothing about a key.
        """
        if not self._keys:
            return ANYONE
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        found = [name for name, key in self._keys if hmac.compare_digest(key, given)]
        if scheme.lower() != "bearer" or not found:
            raise errors.unauthenticated()
        return found[0]
