"""The broker's exchange, queues, policies and users as data, and as RabbitMQ's definitions document.

    sluice (topic) --<queue>--> Test_Query, celery --dead letters--> sluice --dead--> dead --recorder--> dead.parked

A queue is declared with its type alone; every number is in a policy, so that a changed number never makes a
declare fail (406) during a rolling update.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# A topic exchange: Celery's native delayed delivery (retries) blocks the worker behind any other type.
EXCHANGE = "sluice"
DEFAULT_QUEUE = "celery"
WORK_QUEUES: tuple[str, ...] = ("Test_Query", DEFAULT_QUEUE)
DEAD_QUEUE = "dead"
PARKED_QUEUE = "dead.parked"
QUEUES = (*WORK_QUEUES, DEAD_QUEUE, PARKED_QUEUE)
QUEUE_ARGUMENTS = {"x-queue-type": "quorum"}

MESSAGE_TTL_S = 24 * 3600
# Redeliveries of a task whose worker dies. RabbitMQ's own default since 4.0; enough for twenty evictions in a row.
DELIVERY_LIMIT = 20
# As many tasks as 30 worker processes end in a day, at 12.5 s each. A message lives for a day: more could only expire.
MAX_LENGTH_MESSAGES = 200_000
# The recorder records so many in a minute; they are the dead letters of about an hour in which it or Redis is away. A
# full `dead` refuses: the broker keeps a dead letter in its work queue until there is room (dead-letter-strategy).
DEAD_MAX_MESSAGES = 50_000
# As many as a person can look at, with the commands of apps/worker/dead_letters.py. Full, it refuses, and the recorder
# says aloud what it does not keep (apps/worker/recorder.py).
PARKED_MAX_MESSAGES = 10_000
# Of each of the two: a fifth of the broker's volume in all, where most bodies have less than 1 KiB.
DEAD_MAX_BYTES = 1024**3
# RabbitMQ's own default since 4.0; 128 MiB before. The recorder holds several messages of this size.
MESSAGE_MAX_BYTES = 16 * 1024**2

# Only a consumer that holds a message far longer than any hard time limit is taken for dead.
CONSUMER_TIMEOUT_S = 3600

# What only an advanced.config can say, in milliseconds.
# quorum_tick_interval: how old a queue's length may be in the management API, which KEDA scales on; 5 s by default.
# dead_letter_worker_publisher_confirm_timeout: when the broker tries again to hand on a dead letter (a retry that has
# come due is one) which a full queue has refused; after 3 minutes by default, long after there is room again.
ADVANCED_CONFIG = "[{rabbit, [{quorum_tick_interval, 1000}, {dead_letter_worker_publisher_confirm_timeout, 10000}]}]."

_DELAYED = r"celery_delayed_.*"  # exchanges and queues that Celery declares for its delayed retries
_WORK = "|".join(map(re.escape, WORK_QUEUES))
_PARKED = re.escape(PARKED_QUEUE)
NOTHING = "^$"


def policies(  # noqa: PLR0913 - all by name: what tests make smaller
    version: tuple[int, int],
    *,
    delivery_limit: int = DELIVERY_LIMIT,
    max_length_messages: int = MAX_LENGTH_MESSAGES,
    message_ttl_s: float = MESSAGE_TTL_S,
    dead_max_messages: int = DEAD_MAX_MESSAGES,
    parked_max_messages: int = PARKED_MAX_MESSAGES,
) -> list[dict[str, Any]]:
    """The policies for a broker of that (major, minor) version; it refuses keys that it does not know."""
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
        dead["delivery-limit"] = -1  # looking at a parked message must never drop it; older ones have no limit
    if version >= (4, 3):
        work["consumer-timeout"] = dead["consumer-timeout"] = CONSUMER_TIMEOUT_S * 1000
    kept = [
        _policy(f"sluice-{queue.replace('.', '-')}", f"^{re.escape(queue)}$", dead | {"max-length": most})
        for queue, most in ((DEAD_QUEUE, dead_max_messages), (PARKED_QUEUE, parked_max_messages))
    ]
    # None for Celery's delay queues: kombu declares them at-least-once since 5.7, so that a retry which comes due
    # while its queue is full waits (tests/integration/test_broker_away.py).
    return [_policy("sluice-work", f"^({_WORK})$", work), *kept]


def _policy(name: str, pattern: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "pattern": pattern, "apply-to": "queues", "priority": 1, "definition": definition}


class BrokerUser(NamedTuple):
    """What a user may do in the virtual host: patterns of the names of exchanges and queues, and of routing keys."""

    tags: tuple[str, ...] = ()
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    publish_to: str = NOTHING
    """Routing keys that the user may publish with to EXCHANGE; RabbitMQ calls them topic permissions."""
    bind_by: str = NOTHING
    """Routing keys by which the user may bind a queue to EXCHANGE, or unbind it."""


# What RabbitMQ cannot separate: whoever may consume from a queue may also get and purge it, as all three need `read`;
# and whoever may declare a queue or an exchange may also delete it, as both need `configure`.
USERS: Mapping[str, BrokerUser] = {
    # Posts tasks, and asks passively for the exchange. A key that is not allowed closes the channel, and with it the
    # posts of all clients: that of a queue which a release has taken away is allowed, and returned as unroutable.
    "api": BrokerUser(write=f"^{EXCHANGE}$", publish_to=rf"^(?!({DEAD_QUEUE}|{_PARKED})$)"),
    # Consumes from the work queues. Declares and binds Celery's delay queues at each start, for which RabbitMQ wants
    # `write` on each queue that is bound. Publishes retries, and dead letters with their reason.
    "worker": BrokerUser(
        configure=f"^{_DELAYED}$",
        write=f"^({EXCHANGE}|{_WORK}|{_DELAYED})$",
        read=f"^({EXCHANGE}|{_WORK}|{_DELAYED})$",
        publish_to=f"^({_WORK}|{DEAD_QUEUE})$",
        bind_by=rf"^#\.({_WORK})$",
    ),
    # consumes dead letters, and parks them
    "recorder": BrokerUser(write=f"^{EXCHANGE}$", read=f"^{DEAD_QUEUE}$", publish_to=rf"^{_PARKED}$"),
    # apps/worker/dead_letters.py: takes parked messages, and sends them again
    "tool": BrokerUser(write=f"^{EXCHANGE}$", read=rf"^{_PARKED}$", publish_to=f"^({_WORK})$"),
    # Reads lengths of queues in the management API, for which the tag and the right to enter the virtual host are
    # enough. `read` would let it purge the queues, and read inputs.
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
    """One user of the definitions document; the same password gives the same hash, so that documents compare.

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
