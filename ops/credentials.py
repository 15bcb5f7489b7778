"""All credentials of a system. They are stored in a private file on one machine, and in Secrets in a cluster."""

import base64
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from apps.contract import redis_users, topology
from ops.command import REFUSALS, Unusable
from ops.files import private_folder, write_private


def _token() -> str:
    return secrets.token_urlsafe(24)


# where a cluster stores each credential: (namespace, Secret, key)
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
    """Every field that is not given is generated: the repository contains no credentials."""

    task_id_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    api_keys: str = field(default_factory=lambda: f"local:{_token()}")
    broker_password_api: str = field(default_factory=_token)
    broker_password_worker: str = field(default_factory=_token)
    broker_password_recorder: str = field(default_factory=_token)
    broker_password_tool: str = field(default_factory=_token)
    broker_password_keda: str = field(default_factory=_token)
    broker_password_admin: str = field(default_factory=_token)
    erlang_cookie: str = field(default_factory=_token)
    """The nodes of a RabbitMQ cluster authenticate with this cookie; RabbitMQ on one machine generates its own."""
    redis_password_api: str = field(default_factory=_token)
    redis_password_worker: str = field(default_factory=_token)
    redis_password_recorder: str = field(default_factory=_token)
    redis_password_tool: str = field(default_factory=_token)
    redis_password_default: str = field(default_factory=_token)
    redis_password_admin: str = field(default_factory=_token)

    @property
    def broker_passwords(self) -> dict[str, str]:
        """Broker user -> password, for the definitions. Excludes the administrator, whom the broker itself creates."""
        return {user: getattr(self, f"broker_password_{user}") for user in topology.USERS}

    @property
    def redis_passwords(self) -> dict[str, str]:
        """Redis user -> password, for the ACL."""
        return {user: getattr(self, f"redis_password_{user}") for user in redis_users.NAMES}

    @property
    def api_key(self) -> str:
        """The bearer key of the first client in API_KEYS (`name:key[,name:key...]`)."""
        return self.api_keys.split(",")[0].partition(":")[2]

    def broker_url(self, user: str, address: str) -> str:
        """The AMQP URL of the broker at `address` (host:port) with the user's password."""
        return f"amqp://{user}:{self.broker_passwords[user]}@{address}/%2F"

    def redis_url(self, user: str, address: str) -> str:
        """The URL of the Redis at `address` (host:port) with the user's password."""
        return f"redis://{user}:{self.redis_passwords[user]}@{address}/0"

    @classmethod
    def from_secrets(cls, objects: Iterable[dict[str, Any]]) -> Self:
        """Read the credentials from Secrets. Credentials that the Secrets do not contain are generated."""
        kept = {(each["metadata"]["namespace"], each["metadata"]["name"]): _data(each) for each in objects}
        found = {
            name: _password(value)
            for name, (namespace, secret, key) in PLACES.items()
            if (value := kept.get((namespace, secret), {}).get(key)) and _password(value)
        }
        return cls(**found)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(each.name for each in fields(self))})"


def load_or_make(path: Path) -> Credentials:
    """Read the credentials from a file with a line NAME=value for each field. Missing ones are generated and added.

    Raises Unusable, or an OSError of `command.REFUSALS`, if the file cannot be read or written.
    """
    names = {each.name for each in fields(Credentials)}
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        found = {name.lower(): value for name, _, value in pairs}
        credentials = Credentials(**{name: value for name, value in found.items() if name in names and value})
        if not names <= found.keys():
            private_folder(path.parent)
            write_private(path, _text(credentials))
        elif path.stat().st_mode & 0o077:  # a file of an earlier version, or restored from a backup
            path.chmod(0o600)
    except OSError as exc:
        if exc.errno in REFUSALS:
            raise
        raise Unusable(
            f"The credentials in {path} cannot be used ({exc.strerror}): change the owner of the file or remove it."
        ) from exc
    return credentials


def _text(credentials: Credentials) -> str:
    lines = ["# Generated by `make up` for this folder only; never commit it."]
    lines += [f"{each.name.upper()}={getattr(credentials, each.name)}" for each in fields(credentials)]
    return "\n".join(lines) + "\n"


def _data(secret: dict[str, Any]) -> dict[str, str]:
    encoded: dict[str, str] = {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}
    return {**encoded, **secret.get("stringData", {})}


def _password(value: str) -> str:
    """The password in a URL, or the value itself if it is not a URL. Empty for a URL without a user.

    Earlier versions had URLs without a user: one password was shared by all processes, and must not be kept.
    """
    if "://" not in value:
        return value
    url = urlsplit(value)
    return url.password or "" if url.username else ""
