"""Authentication of clients by bearer keys, and ownership of tasks by client names."""

import hmac
from collections.abc import Sequence
from pathlib import Path

from apps.api import errors
from apps.contract import keys
from apps.contract.ids import TaskIds
from apps.contract.keys import ApiKey
from apps.contract.settings import ApiSettings

# Owner of every task if authentication is disabled.
ANYONE = "anyone"


class Clients:
    """Clients with their bearer keys. Without any, authentication is explicitly disabled (AUTH_DISABLED)."""

    def __init__(self, api_keys: Sequence[ApiKey]) -> None:
        self._keys = [(each.name, each.key.get_secret_value().encode()) for each in api_keys]

    def identify(self, authorization: str | None) -> str:
        """The client's name. Raises the 401 problem.

        All keys are compared in constant time: the duration reveals nothing about a key.
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
    """Raise the 404 problem if the id is not that of one of the client's tasks."""
    if not ids.owns(owner, task_id):
        raise errors.not_found()


def read_keys(settings: ApiSettings) -> tuple[ApiKey, ...]:
    """The clients from API_KEYS or the file API_KEYS_FILE. Raises SystemExit with one sentence."""
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
