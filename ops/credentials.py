"""Every credential of a cluster. The cluster's own Secrets (or git's, encrypted) are the only place that keeps them."""

import base64
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlsplit

from apps.contract import redis_users


def _token() -> str:
    return secrets.token_urlsafe(24)


# where each credential is kept: namespace, Secret, key
PLACES = {
    "task_id_key": ("fastapi", "api", "TASK_ID_KEY"),
    "api_keys": ("fastapi", "api", "API_KEYS"),
    "broker_password_api": ("fastapi", "api", "CELERY_BROKER_URL"),
    "broker_password_worker": ("celery-workers", "worker", "CELERY_BROKER_URL"),
    "broker_password_recorder": ("celery-workers", "recorder", "CELERY_BROKER_URL"),
    "broker_password_tool": ("celery-workers", "tool", "CELERY_BROKER_URL"),
    "broker_password_keda": ("celery-workers", "rabbitmq-keda", "password"),
    "broker_password_admin": ("data", "rabbitmq-auth", "password"),
    "erlang_cookie": ("data", "rabbitmq-auth", "erlang-cookie"),
    "redis_password_api": ("fastapi", "api", "CELERY_RESULT_BACKEND"),
    "redis_password_worker": ("celery-workers", "worker", "CELERY_RESULT_BACKEND"),
    "redis_password_recorder": ("celery-workers", "recorder", "CELERY_RESULT_BACKEND"),
    "redis_password_tool": ("celery-workers", "tool", "CELERY_RESULT_BACKEND"),
    "redis_password_default": ("data", "redis-auth", "probe-password"),
    "redis_password_admin": ("data", "redis-auth", "password"),
}


@dataclass(frozen=True, repr=False)
class Credentials:
    """All generated; a clone has none of its own."""

    task_id_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    api_keys: str = field(default_factory=lambda: f"local:{_token()}")
    broker_password_api: str = field(default_factory=_token)
    broker_password_worker: str = field(default_factory=_token)
    broker_password_recorder: str = field(default_factory=_token)
    broker_password_tool: str = field(default_factory=_token)
    broker_password_keda: str = field(default_factory=_token)
    broker_password_admin: str = field(default_factory=_token)
    erlang_cookie: str = field(default_factory=_token)
    redis_password_api: str = field(default_factory=_token)
    redis_password_worker: str = field(default_factory=_token)
    redis_password_recorder: str = field(default_factory=_token)
    redis_password_tool: str = field(default_factory=_token)
    redis_password_default: str = field(default_factory=_token)
    redis_password_admin: str = field(default_factory=_token)

    @property
    def redis_passwords(self) -> dict[str, str]:
        """By Redis user, for its ACL."""
        return {user: getattr(self, f"redis_password_{user}") for user in redis_users.NAMES}

    @classmethod
    def from_secrets(cls, objects: Iterable[dict[str, Any]]) -> Self:
        """Those that these Secrets have; the others are generated."""
        kept = {(each["metadata"]["namespace"], each["metadata"]["name"]): _data(each) for each in objects}
        found = {
            name: _password(value)
            for name, (namespace, secret, key) in PLACES.items()
            if (value := kept.get((namespace, secret), {}).get(key)) and _password(value)
        }
        return cls(**found)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(each.name for each in fields(self))})"


def _data(secret: dict[str, Any]) -> dict[str, str]:
    encoded: dict[str, str] = {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}
    return {**encoded, **secret.get("stringData", {})}


def _password(value: str) -> str:
    """The password alone. Of a URL without a user, the password of all parts in earlier versions, nothing."""
    if "://" not in value:
        return value
    url = urlsplit(value)
    return url.password or "" if url.username else ""
