"""Who asks: a client is known by its bearer key, and its tasks by the client's name."""

import hmac
from collections.abc import Sequence
from pathlib import Path

from apps.api import errors
from apps.contract import keys
from apps.contract.ids import TaskIds
from apps.contract.keys import ApiKey
from apps.contract.settings import ApiSettings

# Owner of every task where authentication is switched off.
ANYONE = "anyone"


class Clients:
    """The clients with their bearer keys; none at all means that authentication was disabled aloud."""

    def __init__(self, api_keys: Sequence[ApiKey]) -> None:
        self._keys = [(each.name, each.key.get_secret_value().encode()) for each in api_keys]

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


def require_own(ids: TaskIds, owner: str, task_id: str) -> None:
    """Raises the 404 problem of an id that is not one of the client's tasks."""
    if not ids.owns(owner, task_id):
        raise errors.not_found()


def read_keys(settings: ApiSettings) -> tuple[ApiKey, ...]:
    """The clients of API_KEYS, or of the file that API_KEYS_FILE names. Raises SystemExit with one sentence."""
    if settings.api_keys_file is None:
        return settings.api_keys
    about = f"API_KEYS_FILE: {settings.api_keys_file}"
    try:
        found = keys.parse(Path(settings.api_keys_file).read_text())
    except OSError as exc:
        raise SystemExit(f"{about} cannot be read ({exc.strerror}): mount the file, or set API_KEYS") from None
    except UnicodeDecodeError:
        raise SystemExit(f"{about} is no text in UTF-8: {keys.FORM}") from None
    except ValueError as exc:
        raise SystemExit(f"{about}: {exc}") from None
    if not found and not settings.auth_disabled:
        raise SystemExit(f"{about} has no keys: {keys.FORM}")
    return found
