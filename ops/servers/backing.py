"""Starts RabbitMQ and Redis from the first available source.

The sources, in this order: URLs in the environment, `docker compose` if an engine answers, programs of this machine,
and, for root, Debian packages.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from apps.contract.settings import BrokerUrl, RedisUrl
from ops import definitions
from ops.command import Unusable
from ops.credentials import Credentials
from ops.management import Management
from ops.servers import compose, inspection, programs
from ops.servers.child import Child
from ops.servers.endpoints import Folder
from ops.servers.rabbitmq import RabbitMQ
from ops.servers.redis import Redis, is_redis

URLS = {"rabbitmq": "CELERY_BROKER_URL", "redis": "CELERY_RESULT_BACKEND"}
FORMS: dict[str, TypeAdapter[Any]] = {
    "CELERY_BROKER_URL": TypeAdapter(BrokerUrl | None),
    "CELERY_RESULT_BACKEND": TypeAdapter(RedisUrl | None),
}


@dataclass
class Backing:
    """The started servers. `broker` and `redis` are host:port, or None if the environment has the server's URL.

    management   the broker's management API, or None
    children     the processes to watch
    """

    broker: str | None = None
    redis: str | None = None
    management: Management | None = None
    children: list[Child] = field(default_factory=list)


def start(stack: ExitStack, folder: Folder, credentials: Credentials, environment: Mapping[str, str]) -> Backing:
    """Start the servers whose URLs the environment does not have, and apply the definitions. The stack stops them.

    The definitions of a broker whose URL the environment has are only checked. Raises Unusable if a server does not
    answer, or if its definitions differ from the contract.
    """
    wanted = [service for service, name in URLS.items() if not environment.get(name)]
    _check_given(environment)
    backing = Backing()
    if wanted and compose.engine_answers():
        _start_containers(stack, folder, credentials, wanted, backing)
    elif wanted:
        _start_programs(stack, folder, credentials, wanted, backing)
    if backing.management:
        _define(backing.management, credentials)
    return backing


def _check_given(environment: Mapping[str, str]) -> None:
    broker, redis = (_given(name, environment) for name in URLS.values())
    if broker:
        inspection.check(broker, environment.get("RABBITMQ_MANAGEMENT_URL"))
        print("RabbitMQ: the one in CELERY_BROKER_URL", flush=True)
    if redis and not is_redis(redis):
        raise Unusable("The Redis in CELERY_RESULT_BACKEND does not answer PING: check its address and password.")
    if redis:
        print("Redis: the one in CELERY_RESULT_BACKEND", flush=True)


def _given(name: str, environment: Mapping[str, str]) -> str | None:
    """The URL of a server in the environment, or None. Raises Unusable if it is not a valid URL for this server."""
    url = environment.get(name)
    try:
        FORMS[name].validate_python(url or None)
    except ValidationError as exc:
        raise Unusable(f"{name}: {exc.errors()[0]['msg'].removeprefix('Value error, ')}.") from None
    return url


def _start_containers(
    stack: ExitStack, folder: Folder, credentials: Credentials, wanted: list[str], backing: Backing
) -> None:
    print(f"Starting {' and '.join(wanted)} with docker compose", flush=True)
    containers = compose.Compose(wanted, credentials, folder.logs)
    stack.callback(containers.stop)
    containers.start()
    backing.children.append(containers.node)
    if "rabbitmq" in wanted:
        backing.broker, backing.management = f"127.0.0.1:{containers.broker_port}", containers.management
    if "redis" in wanted:
        backing.redis = f"127.0.0.1:{containers.redis_port}"


def _start_programs(
    stack: ExitStack, folder: Folder, credentials: Credentials, wanted: list[str], backing: Backing
) -> None:
    found = programs.ensure()
    if "rabbitmq" in wanted:
        broker = RabbitMQ(folder.path / "rabbitmq", found, password=credentials.broker_password_admin, logs=folder.logs)
        stack.callback(broker.stop)
        broker.start()
        print(f"RabbitMQ {_dotted(broker.version)} listens on 127.0.0.1:{broker.port}", flush=True)
        backing.broker, backing.management = f"127.0.0.1:{broker.port}", broker.management
        backing.children += [broker.epmd, broker.node]
    if "redis" in wanted:
        redis = Redis(folder.path / "redis", found, passwords=credentials.redis_passwords, logs=folder.logs)
        stack.callback(redis.stop)
        redis.start()
        print(f"Redis {_dotted(redis.version)} listens on 127.0.0.1:{redis.port}", flush=True)
        backing.redis = f"127.0.0.1:{redis.port}"
        backing.children.append(redis.node)


def _define(management: Management, credentials: Credentials) -> None:
    try:
        definitions.apply(management, credentials.broker_passwords)
    except OSError as exc:
        raise Unusable(
            f"The definitions could not be loaded into RabbitMQ at {management.url}: {exc}. "
            "See its log, and run this again."
        ) from exc


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
