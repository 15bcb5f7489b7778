"""The broker's exchange, queues, policies and users as data, and as RabbitMQ's definitions document.

    sluice (topic) --<queue>--> Test_Query, celery --dead letters--> sluice --dead--> dead --recorder--> dead.parked

A queue is declared with its type only, and policies have all limits: a changed limit then never makes a declare fail
(406) during a rolling update.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# It must be a topic exchange: with any other type, Celery's native delayed delivery (retries) blocks the worker.
EXCHANGE = "sluice"
DEFAULT_QUEUE = "celery"
WORK_QUEUES: tuple[str, ...] = ("Test_Query", DEFAULT_QUEUE)
DEAD_QUEUE = "dead"
PARKED_QUEUE = "dead.parked"
QUEUES = (*WORK_QUEUES, DEAD_QUEUE, PARKED_QUEUE)
QUEUE_ARGUMENTS = {"x-queue-type": "quorum"}

MESSAGE_TTL_S = 24 * 3600
# Redeliveries of a task whose worker dies. The default since RabbitMQ 4.0; allows twenty successive evictions.
DELIVERY_LIMIT = 20
# 30 worker processes complete this number in a day, at 12.5 s per task. Messages live for a day: more would expire.
MAX_LENGTH_MESSAGES = 200_000
# The recorder handles this number in a minute; it is about an hour of dead letters during an outage of the recorder or
# Redis. A full `dead` refuses messages: the broker keeps a dead letter in its work queue until there is room
# (dead-letter-strategy).
DEAD_MAX_MESSAGES = 50_000
# As many as a person can inspect with the commands of apps/worker/dead_letters.py. When the queue is full, it refuses
# messages, and the recorder logs each dead letter that it does not keep (apps/worker/recorder.py).
PARKED_MAX_MESSAGES = 10_000
# For each of `dead` and `dead.parked`; together a fifth of the broker's volume. Most bodies are below 1 KiB.
DEAD_MAX_BYTES = 1024**3
# The default since RabbitMQ 4.0; 128 MiB before. The recorder holds several messages of this size.
MESSAGE_MAX_BYTES = 16 * 1024**2

# Far above any hard time limit: a consumer that holds a message for longer is considered dead.
CONSUMER_TIMEOUT_S = 3600

# Settings in milliseconds that only advanced.config supports.
# quorum_tick_interval: update interval of queue lengths in the management API, on which KEDA scales; 5 s by default.
# dead_letter_worker_publisher_confirm_timeout: delay before the broker republishes a dead letter that a full queue has
# refused. A retry that has come due is a dead letter too. The default, 3 minutes, is long after there is room again.
ADVANCED_CONFIG = "[{rabbit, [{quorum_tick_interval, 1000}, {dead_letter_worker_publisher_confirm_timeout, 10000}]}]."

_DELAYED = r"celery_delayed_.*"  # exchanges and queues of Celery's delayed retries
_WORK = "|".join(map(re.escape, WORK_QUEUES))
_PARKED = re.escape(PARKED_QUEUE)
NOTHING = "^$"


def policies(  # noqa: PLR0913 - keyword arguments: limits that tests reduce
    version: tuple[int, int],
    *,
    delivery_limit: int = DELIVERY_LIMIT,
    max_length_messages: int = MAX_LENGTH_MESSAGES,
    message_ttl_s: float = MESSAGE_TTL_S,
    dead_max_messages: int = DEAD_MAX_MESSAGES,
    parked_max_messages: int = PARKED_MAX_MESSAGES,
) -> list[dict[str, Any]]:
    """The policies for a broker of this (major, minor) version; a broker refuses keys that it does not know."""
    work: dict[str, Any] = {
        "delivery-limit": delivery_limit,
        "dead-letter-exchange": EXCHANGE,
        "dead-letter-routing-key": DEAD_QUEUE,
        # at-least-once needs reject-publish: the broker keeps a dead letter until `dead` has confirmed it
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
        "max-length": max_length_messages,
        "message-ttl": int(message_ttl_s * 1000),
    }
    dead: dict[str, Any] = {"overflow": "reject-publish", "max-length-bytes": DEAD_MAX_BYTES}
    if version >= (4, 0):
        dead["delivery-limit"] = -1  # inspecting a parked message must never drop it; before 4.0 there is no limit
    if version >= (4, 3):
        work["consumer-timeout"] = dead["consumer-timeout"] = CONSUMER_TIMEOUT_S * 1000
    kept = [
        _policy(f"sluice-{queue.replace('.', '-')}", f"^{re.escape(queue)}$", dead | {"max-length": most})
        for queue, most in ((DEAD_QUEUE, dead_max_messages), (PARKED_QUEUE, parked_max_messages))
    ]
    # Celery's delay queues need no policy: kombu declares them at-least-once since 5.7, so a retry that comes due while
    # its queue is full waits (tests/integration/test_broker_away.py).
    return [_policy("sluice-work", f"^({_WORK})$", work), *kept]


def _policy(name: str, pattern: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "pattern": pattern, "apply-to": "queues", "priority": 1, "definition": definition}


class BrokerUser(NamedTuple):
    """Permissions of a user in the virtual host: patterns for names of exchanges and queues, and for routing keys."""

    tags: tuple[str, ...] = ()
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    publish_to: str = NOTHING
    """Routing keys with which the user may publish to EXCHANGE (RabbitMQ: topic permissions)."""
    bind_by: str = NOTHING
    """Routing keys by which the user may bind a queue to EXCHANGE, or unbind it."""


# Limits of RabbitMQ: a user that may consume from a queue may also get and purge it (all need `read`), and a user that
# may declare a queue or an exchange may also delete it (both need `configure`).
USERS: Mapping[str, BrokerUser] = {
    # Publishes tasks, and declares the exchange passively. A forbidden routing key closes the channel, and every open
    # publish fails with it. Unknown keys are therefore allowed: for a queue that a release has removed, the broker
    # returns the message as unroutable.
    "api": BrokerUser(write=f"^{EXCHANGE}$", publish_to=rf"^(?!({DEAD_QUEUE}|{_PARKED})$)"),
    # Consumes from the work queues. Declares and binds Celery's delay queues at each start: RabbitMQ requires `write`
    # on each bound queue. Publishes retries, and dead letters with their reason.
    "worker": BrokerUser(
        configure=f"^{_DELAYED}$",
        write=f"^({EXCHANGE}|{_WORK}|{_DELAYED})$",
        read=f"^({EXCHANGE}|{_WORK}|{_DELAYED})$",
        publish_to=f"^({_WORK}|{DEAD_QUEUE})$",
        bind_by=rf"^#\.({_WORK})$",
    ),
    # consumes and parks dead letters
    "recorder": BrokerUser(write=f"^{EXCHANGE}$", read=f"^{DEAD_QUEUE}$", publish_to=rf"^{_PARKED}$"),
    # apps/worker/dead_letters.py: consumes parked messages and republishes them
    "tool": BrokerUser(write=f"^{EXCHANGE}$", read=rf"^{_PARKED}$", publish_to=f"^({_WORK})$"),
    # Reads queue lengths in the management API, which needs only the tag and access to the virtual host. `read` would
    # allow it to purge queues and to read inputs.
    "keda": BrokerUser(tags=("management",)),
}


def definitions(
    *, vhost: str, passwords: Mapping[str, str], version: tuple[int, int], **limits: float
) -> dict[str, Any]:
    """RabbitMQ's definitions document; `passwords` by user name, `limits` as in `policies`.

    Source: the schema of `rabbitmqctl export_definitions`.
    """
    return {
        "vhosts": [{"name": vhost}],
        "users": [user(name, list(rights.tags), passwords[name]) for name, rights in USERS.items()],
        "permissions": [
            {"user": name, "vhost": vhost, "configure": rights.configure, "write": rights.write, "read": rights.read}
            for name, rights in USERS.items()
        ],
        "topic_permissions": [
            {"user": name, "vhost": vhost, "exchange": EXCHANGE, "write": rights.publish_to, "read": rights.bind_by}
            for name, rights in USERS.items()
        ],
        "exchanges": [
            {"name": EXCHANGE, "vhost": vhost, "type": "topic", "durable": True, "auto_delete": False}
            | {"internal": False, "arguments": {}}
        ],
        "queues": [
            {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": QUEUE_ARGUMENTS}
            for name in QUEUES
        ],
        "bindings": [
            {"source": EXCHANGE, "vhost": vhost, "destination": name, "destination_type": "queue"}
            | {"routing_key": name, "arguments": {}}
            for name in QUEUES
        ],
        "policies": [
            {"vhost": vhost, **policy}
            for policy in policies(version, **limits)  # type: ignore[arg-type]
        ],
    }


def user(name: str, tags: list[str], password: str) -> dict[str, Any]:
    """A user of the definitions document. The salt is derived from the password: equal users give equal documents.

    Source: RabbitMQ, "Computing Password Hashes" (salt of 4 bytes, SHA-256).
    """
    salt = hashlib.sha256(f"{name}:{password}".encode()).digest()[:4]
    hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {
        "name": name,
        "tags": tags,
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }
